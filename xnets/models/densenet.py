"""DenseNet-BC: for CIFAR (depth, growth rate) and for ImageNet (121, 169, 201, 161), bottleneck 4k, compression 0.5."""

import torch
from torch import Tensor, nn

from xnets.models.builder import Builder, norm_relu

# depth: (layers of the four blocks, growth rate, channels of the stem)
IMAGENET = {
    121: ((6, 12, 24, 16), 32, 64),
    169: ((6, 12, 32, 32), 32, 64),
    201: ((6, 12, 48, 32), 32, 64),
    161: ((6, 12, 36, 24), 48, 96),
}


def authors_kept_transitions_dense(depth: int, growth: int | None, compression: int) -> bool:
    """Whether the authors' log of this X-DenseNet-BC shows dense transitions (they mix both within a figure)."""
    if growth is None:
        return True
    return (depth, growth) in {(40, 24), (40, 36), (58, 60)} or (depth, growth, compression) == (70, 60, 16)


class DenseLayer(nn.Module):
    """norm, ReLU, 1x1 to 4k, norm, ReLU, 3x3 to k; its output is appended to its input."""

    def __init__(self, builder: Builder, n_in: int, growth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *norm_relu(builder, n_in), builder.conv(n_in, 4 * growth, 1),
            *norm_relu(builder, 4 * growth), builder.conv(4 * growth, growth, 3),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """(N, n_in, H, W) -> (N, n_in + k, H, W)."""
        return torch.cat([x, self.body(x)], dim=1)


class DenseNetBC(nn.Module):
    """Dense blocks joined by transitions (1x1 convolution to half the channels, 2x2 average pooling).

    Input (N, 3, 32, 32) with growth given, else (N, 3, 224, 224); output (N, num_classes) logits.
    """

    def __init__(self, builder: Builder, num_classes: int, depth: int, growth: int | None) -> None:
        super().__init__()
        if growth is not None:  # CIFAR: three equal blocks after one 3x3 convolution
            blocks, full_growth, stem = ((depth - 4) // 6,) * 3, growth, 2 * growth
        else:
            blocks, full_growth, stem = IMAGENET[depth]
        k = builder.width(full_growth)
        channels = builder.width(stem)
        if growth is not None:
            layers = [builder.conv(3, channels, 3, role="first")]
        else:
            layers = [builder.conv(3, channels, 7, 2, role="first"), *norm_relu(builder, channels)]
            layers.append(builder.pool(nn.MaxPool2d(3, 2, 1)))
        for i, count in enumerate(blocks):
            for _ in range(count):
                layers.append(DenseLayer(builder, channels, k))
                channels += k
            if i + 1 < len(blocks):
                half = channels // 2
                layers += [*norm_relu(builder, channels), builder.conv(channels, half, 1, role="transition")]
                layers.append(builder.pool(nn.AvgPool2d(2)))
                channels = half
        layers += [*norm_relu(builder, channels), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        self.features = nn.Sequential(*layers)
        self.classifier = builder.linear(channels, num_classes, role="last")

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, num_classes)."""
        return self.classifier(self.features(x))
