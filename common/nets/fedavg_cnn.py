"""FedAvgCNN: two 5x5 convolutions with pooling, a hidden layer of 512, a classifier; no batch norm.

Source: McMahan et al., AISTATS 2017, section 3, in the form of FL-bench and PFLlib: no padding, and
    their tensor names (base.conv1.weight, …, classifier.bias), so that their weights can be taken by name.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from common.errors import ConfigError
from common.models import shape_of
from common.nets._head import head


@dataclass(frozen=True)
class Options:
    input: str = "28x28x1"
    hidden: int = 512
    channels_last: bool = True


class Base(nn.Module):
    def __init__(self, shape: tuple[int, ...], hidden: int) -> None:
        super().__init__()
        height, width, channels = shape
        self.conv1 = nn.Conv2d(channels, 32, 5)
        self.conv2 = nn.Conv2d(32, 64, 5)
        rows, columns = (((size - 4) // 2 - 4) // 2 for size in (height, width))
        self.fc1 = nn.Linear(64 * rows * columns, hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(F.max_pool2d(self.conv1(x), 2))  # the same numbers as pooling last, on a quarter of the entries
        x = F.relu(F.max_pool2d(self.conv2(x), 2))
        return F.relu(self.fc1(x.flatten(1)))  # (n, channel * row * column)


class FedAvgCNN(nn.Module):
    def __init__(self, shape: tuple[int, ...], hidden: int, n_classes: int) -> None:
        super().__init__()
        self.dim = hidden
        self.base = Base(shape, hidden)
        self.classifier = head(hidden, n_classes)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        embedding: torch.Tensor = self.base(x)
        return embedding


def build(options: Options, n_classes: int) -> nn.Module:
    shape = shape_of(options.input)
    if len(shape) != 3 or min(shape[:2]) < 16:
        raise ConfigError(f"model fedavg_cnn takes images of 16x16 and more, got input = {options.input!r}")
    return FedAvgCNN(shape, options.hidden, n_classes)
