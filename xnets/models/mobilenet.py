"""MobileNet-0.5 (v1), and its X- and G- versions: pointwise convolutions 2 to 13 sparse."""

from torch import Tensor, nn

from xnets.models.builder import Builder, norm_relu

# (stride of the depthwise convolution, outputs of the pointwise one) of the thirteen separable blocks
BLOCKS = (
    (1, 32), (2, 64), (1, 64), (2, 128), (1, 128), (2, 256), (1, 256), (1, 256), (1, 256), (1, 256), (1, 256),
    (2, 512), (1, 512),
)  # fmt: skip


class MobileNet(nn.Module):
    """A strided stem and thirteen separable blocks; pointwise convolutions after the first are "body".

    The paper's text says "after the 8th layer", but its costs (85.8, 53.7, 37.6, 29.5 MFLOPs) fit only all but one.
    `authors`: the network of the authors' code and log is wider than MobileNet-0.5: a stem of 32 and a last pointwise
    convolution to 1024 (176.5M multiply-adds, 2.11M parameters, against 149.5M and 1.33M).
    Input (N, 3, 224, 224), output (N, num_classes) logits.
    """

    def __init__(self, builder: Builder, num_classes: int, authors: bool) -> None:
        super().__init__()
        n_in = builder.width(32 if authors else 16)
        blocks = (*BLOCKS[:-1], (1, 1024)) if authors else BLOCKS
        layers = [builder.conv(3, n_in, 3, 2, role="first"), *norm_relu(builder, n_in)]
        for i, (stride, channels) in enumerate(blocks):
            n_out = builder.width(channels)
            layers += [builder.depthwise(n_in, stride), *norm_relu(builder, n_in)]
            layers += [builder.conv(n_in, n_out, 1, role="body" if i else "first"), *norm_relu(builder, n_out)]
            n_in = n_out
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = builder.linear(n_in, num_classes, role="last")

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, num_classes)."""
        return self.classifier(self.features(x))
