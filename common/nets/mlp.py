"""One hidden layer with ReLU: the same tensors and the same first draw as numpy's `mlp`."""

import math

import torch
from torch import nn

from common.models import MlpOptions, shape_of
from common.nets._head import head

Options = MlpOptions


class Mlp(nn.Module):
    def __init__(self, size: int, dim: int, n_classes: int) -> None:
        super().__init__()
        self.dim = dim
        self.fc1 = nn.Linear(size, dim)
        self.classifier = head(dim, n_classes)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.fc1(x))


def build(options: MlpOptions, n_classes: int) -> nn.Module:
    return Mlp(math.prod(shape_of(options.input)), options.hidden, n_classes)
