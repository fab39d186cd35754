from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from common.errors import ConfigError
from common.models import shape_of
from common.nets._head import head


@dataclass(frozen=True)
class Options:
    input: str = "32x32x3"
    stem: str = "small"  # "small": 3x3 convolution, stride 1, no pool, for images below about 100 pixels; "large": 7x7
    channels_last: bool = True


class ResNet(nn.Module):
    """torchvision's layers under torchvision's names, but `classifier` for `fc`, and a stem for small images.

    Source: He et al., CVPR 2016; small stem as for CIFAR in section 4.2.
    """

    conv_draw = "fan_out_normal"

    def __init__(self, layers: Any, options: Options, n_classes: int) -> None:  # Any: torchvision is not typed
        super().__init__()
        channels = shape_of(options.input)[2]
        self.pools = options.stem == "large"
        self.dim = int(layers.fc.in_features)
        self.conv1 = (
            nn.Conv2d(channels, 64, 7, 2, 3, bias=False) if self.pools else nn.Conv2d(channels, 64, 3, 1, 1, bias=False)
        )
        self.bn1: nn.Module = layers.bn1
        self.layer1: nn.Module = layers.layer1
        self.layer2: nn.Module = layers.layer2
        self.layer3: nn.Module = layers.layer3
        self.layer4: nn.Module = layers.layer4
        self.classifier = head(self.dim, n_classes)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        x = self.bn1(self.conv1(x))
        if self.pools:
            x = F.max_pool2d(x, 3, 2, 1)  # before the ReLU, with which it commutes: that has a quarter to do
        x = F.relu(x)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return x.mean((2, 3))


def build(layers: Any, options: Options, n_classes: int) -> nn.Module:
    if len(shape_of(options.input)) != 3:
        raise ConfigError(f"a ResNet takes images, got input = {options.input!r}")
    if options.stem not in ("small", "large"):
        raise ConfigError(f"stem of a ResNet: expected 'small' or 'large', got {options.stem!r}")
    return ResNet(layers, options, n_classes)
