"""AlexNet as in torchvision (61.1M parameters), and X-AlexNet: sparse linear layers, dense convolutions."""

from torch import Tensor, nn

from xnets.models.builder import Builder, norm_relu

# (kernel, stride, padding, outputs, pooled after) of the convolutions
CONVS = ((11, 4, 2, 64, True), (5, 1, 2, 192, True), (3, 1, 1, 384, False), (3, 1, 1, 256, False), (3, 1, 1, 256, True))

# Degrees of fc6, fc7, fc8; None is dense. The paper gives counts only (7.6M and 9.7M). "paper": the choice of powers of
# two nearest to them (7.613M and 9.710M weights); how X-AlexNet-2's 768 split between fc6 and fc7 is undetermined.
# "authors": the released alexnetexpander1 and alexnetexpander2 are the same network (5.08M, 12.03x), neither row.
DEGREES = {
    ("1", "paper"): (128, 128, None),
    ("2", "paper"): (256, 512, None),
    ("1", "authors"): (256, 256, 512),
    ("2", "authors"): (256, 256, 512),
}


class AlexNet(nn.Module):
    """Five convolutions and three linear layers. The baseline has dropout; X-AlexNet, as released, norms instead.

    The paper prints X-AlexNet's sizes only (7.6M and 9.7M), so the degrees are the best candidates: 128 in fc6 and in
    fc7 for X-AlexNet-1, 256 and 512 for X-AlexNet-2 (only their sum is determined), fc8 dense. rule="authors" gives
    the one network they released under both names (256, 256 and 512 in fc8, 5.08M), which fits neither size.

    Input (N, 3, 224, 224), output (N, num_classes) logits.
    """

    def __init__(self, builder: Builder, num_classes: int, degrees: tuple[int | None, ...] | None) -> None:
        super().__init__()
        expander = degrees is not None
        layers: list[nn.Module] = []
        n_in = 3
        for kernel, stride, padding, channels, pooled in CONVS:
            n_out = builder.width(channels)
            layers.append(builder.conv(n_in, n_out, kernel, stride, role="first", bias=not expander, padding=padding))
            layers += norm_relu(builder, n_out) if expander else [nn.ReLU(inplace=True)]
            if pooled:
                layers.append(builder.pool(nn.MaxPool2d(3, 2)))
            n_in = n_out
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(6), nn.Flatten())
        fc6, fc7, fc8 = (d and builder.width(d) for d in degrees or (None,) * 3)
        hidden = builder.width(4096)
        after = (lambda: nn.BatchNorm1d(hidden, device=builder.device)) if expander else nn.Identity
        before = nn.Identity if expander else nn.Dropout
        self.classifier = nn.Sequential(
            before(), builder.linear(n_in * 36, hidden, degree=fc6), after(), nn.ReLU(inplace=True),
            before(), builder.linear(hidden, hidden, degree=fc7), after(), nn.ReLU(inplace=True),
            builder.linear(hidden, num_classes, degree=fc8),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, num_classes)."""
        return self.classifier(self.features(x))
