"""ResNet for ImageNet, as in torchvision (stride in the 3x3 convolution of a bottleneck)."""

import torch.nn.functional as F
from torch import Tensor, nn

from xnets.models.builder import Builder, norm_relu

# depth: (bottleneck?, blocks of the four stages)
DEPTHS = {
    18: (False, (2, 2, 2, 2)),
    34: (False, (3, 4, 6, 3)),
    50: (True, (3, 4, 6, 3)),
    101: (True, (3, 4, 23, 3)),
    152: (True, (3, 8, 36, 3)),
}


class Block(nn.Module):
    """Two 3x3 convolutions, or 1x1, 3x3, 1x1 for a bottleneck, added to the input (or to its 1x1 projection)."""

    def __init__(self, builder: Builder, n_in: int, width: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        n_out = 4 * width if bottleneck else width
        kept = builder.stride(stride)
        if bottleneck:
            layers = [
                builder.conv(n_in, width, 1), *norm_relu(builder, width),
                builder.conv(width, width, 3, kept), *norm_relu(builder, width), builder.conv(width, n_out, 1),
            ]  # fmt: skip
        else:
            layers = [builder.conv(n_in, width, 3, kept), *norm_relu(builder, width), builder.conv(width, n_out, 3)]
        self.body = nn.Sequential(*layers, nn.BatchNorm2d(n_out, device=builder.device))
        self.shortcut = nn.Sequential()
        if stride > 1 or n_in != n_out:
            projection = builder.conv(n_in, n_out, 1, kept, role="shortcut")
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(n_out, device=builder.device))

    def forward(self, x: Tensor) -> Tensor:
        """(N, n_in, H, W) -> (N, n_out, H / stride, W / stride)."""
        return F.relu(self.body(x) + self.shortcut(x))


class ResNet(nn.Module):
    """Input (N, 3, 224, 224), output (N, num_classes) logits. In an X-ResNet the authors left the shortcuts dense."""

    def __init__(self, builder: Builder, num_classes: int, depth: int) -> None:
        super().__init__()
        bottleneck, stages = DEPTHS[depth]
        n_in = builder.width(64)
        layers = [builder.conv(3, n_in, 7, 2, role="first"), *norm_relu(builder, n_in)]
        layers.append(builder.pool(nn.MaxPool2d(3, 2, 1)))
        for stage, count in enumerate(stages):
            width = builder.width(64 * 2**stage)
            for i in range(count):
                layers.append(Block(builder, n_in, width, 2 if stage and not i else 1, bottleneck))
                n_in = 4 * width if bottleneck else width
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = builder.linear(n_in, num_classes, role="last")

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, num_classes)."""
        return self.classifier(self.features(x))
