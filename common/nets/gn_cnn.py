"""A family of small convolutional nets with group norm, by width; cheap enough to train one per taxonomy node.

Blocks of 3x3 convolution, group norm, 2x2 max-pool and ReLU with width, 2 width, 4 width … channels, then the
mean over the map. Group norm, because agents train on few images, and because it has no buffers to average.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from common.errors import ConfigError
from common.models import shape_of
from common.nets._head import head


@dataclass(frozen=True)
class Options:
    input: str = "32x32x3"
    width: int = 32
    blocks: int = 0  # 0: as many as bring the map to 4 pixels or fewer, from 1 to 4: 3 at 32 pixels, 4 at 64
    channels_last: bool = True


class Block(nn.Module):
    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(min(8, n_out // 4), n_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(F.max_pool2d(self.norm(self.conv(x)), 2))  # as pooling last, on a quarter of the entries


class GroupNormCNN(nn.Module):
    def __init__(self, channels: list[int], n_classes: int) -> None:
        super().__init__()
        self.dim = channels[-1]
        self.blocks = nn.Sequential(*(Block(n_in, n_out) for n_in, n_out in pairwise(channels)))
        self.classifier = head(self.dim, n_classes)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.blocks(x)
        return features.mean((2, 3))


def build(options: Options, n_classes: int) -> nn.Module:
    shape = shape_of(options.input)
    side = min(shape[:2])
    blocks = options.blocks or min(4, max(1, sum(side >> n > 4 for n in range(8))))
    if len(shape) != 3 or side >> blocks < 1:
        raise ConfigError(f"model gn_cnn takes images of {1 << blocks} pixels and more, got input = {options.input!r}")
    if options.width < 4 or (options.width > 32 and options.width % 8) or options.width % 4:
        raise ConfigError(f"model gn_cnn: width must be a multiple of 4, above 32 of 8, got {options.width}")
    return GroupNormCNN([shape[2], *(options.width << n for n in range(blocks))], n_classes)
