"""ResNet-10, by width: a small ResNet for small images, 0.31 M parameters at width 16, 1.23 M at width 32."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from common.errors import ConfigError
from common.models import shape_of
from common.nets._head import head


@dataclass(frozen=True)
class Options:
    input: str = "64x64x3"
    width: int = 16
    stem: str = "pooled"  # 3x3 convolution: "pooled" with stride 2, then max-pool, for 64 px; "small" stride 1, 32 px
    channels_last: bool = True


class Block(nn.Module):
    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.shortcut = nn.Sequential()
        if stride != 1 or n_in != n_out:
            self.shortcut = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class ResNet10(nn.Module):
    """One basic block a stage.

    Source: He et al., CVPR 2016, with one block in each of the four stages and a stem for small images.
    """

    conv_draw = "fan_out_normal"

    def __init__(self, channels: int, width: int, *, pooled: bool, n_classes: int) -> None:
        super().__init__()
        self.pools = pooled
        self.dim = 8 * width
        self.conv1 = nn.Conv2d(channels, width, 3, 2 if pooled else 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = Block(width, width, 1)
        self.layer2 = Block(width, 2 * width, 2)
        self.layer3 = Block(2 * width, 4 * width, 2)
        self.layer4 = Block(4 * width, 8 * width, 2)
        self.classifier = head(self.dim, n_classes)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        x = self.bn1(self.conv1(x))
        if self.pools:
            x = F.max_pool2d(x, 3, 2, 1)  # before the ReLU, with which it commutes: that has a quarter to do
        x = F.relu(x)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        features: torch.Tensor = x.mean((2, 3))
        return features


def build(options: Options, n_classes: int) -> nn.Module:
    shape = shape_of(options.input)
    if len(shape) != 3:
        raise ConfigError(f"model resnet10 takes images, got input = {options.input!r}")
    if options.stem not in ("pooled", "small"):
        raise ConfigError(f"model resnet10: stem must be 'pooled' or 'small', got {options.stem!r}")
    if options.width < 1:
        raise ConfigError(f"model resnet10: width must be at least 1, got {options.width}")
    return ResNet10(shape[2], options.width, pooled=options.stem == "pooled", n_classes=n_classes)
