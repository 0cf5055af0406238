"""VGG16 with batch normalisation for 32x32 images, as in the authors' CIFAR code (15.0M parameters)."""

from torch import Tensor, nn

from xnets.models.builder import Builder, norm_relu

BLOCKS = (2, 64), (2, 128), (3, 256), (3, 512), (3, 512)

# Degrees of the twelve convolutions after the first and of the hidden linear layer. The paper gives parameter counts
# only. "paper": the natural choice nearest to them (1.65M: 1.6493M weights; 1.15M: 1.1499M with norms), not unique.
# "authors": the one configuration they released and logged, 64*3_16*9_128, 0.81M, which fits neither count.
DEGREES = {
    ("1", "paper"): ((64,) * 6 + (32,) * 6, 256),
    ("2", "paper"): ((64,) * 6 + (16,) * 6, 128),
    ("2", "authors"): ((64,) * 3 + (16,) * 9, 128),
}


class VGG16(nn.Module):
    """Five blocks of 3x3 convolutions with norm and ReLU, each ended by max-pooling, then two linear layers.

    X-VGG16-1 and X-VGG16-2 state degrees layer by layer; a layer whose fan-in is not above its degree is dense. The
    paper prints their sizes only (1.65M and 1.15M), so the degrees are the best candidates, not unique: 64 up to 256
    channels, 32 (X-VGG16-1) or 16 (X-VGG16-2) at 512, and 256 or 128 in the hidden linear layer. rule="authors" gives
    the one configuration they released (X-VGG16-2, 0.81M), which fits neither size.
    Input (N, 3, 32, 32), output (N, num_classes) logits.
    """

    def __init__(self, builder: Builder, num_classes: int, degrees: tuple[tuple[int, ...], int] | None) -> None:
        super().__init__()
        conv_degrees, hidden_degree = degrees or ((None,) * 12, None)
        narrowed = iter([None] + [d and builder.width(d) for d in conv_degrees])
        layers: list[nn.Module] = []
        n_in = 3
        for count, channels in BLOCKS:
            for _ in range(count):
                n_out, role = builder.width(channels), "body" if layers else "first"
                layers.append(builder.conv(n_in, n_out, 3, degree=next(narrowed), bias=True, role=role))
                layers += norm_relu(builder, n_out)
                n_in = n_out
            layers.append(builder.pool(nn.MaxPool2d(2)))
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        hidden = builder.linear(n_in, n_in, degree=hidden_degree and builder.width(hidden_degree))
        self.classifier = nn.Sequential(hidden, nn.ReLU(inplace=True), builder.linear(n_in, num_classes, role="last"))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, num_classes)."""
        return self.classifier(self.features(x))
