"""Softmax regression: the same tensors and the same first draw as numpy's `linear`."""

import math

import torch
from torch import nn

from common.models import LinearOptions, shape_of
from common.nets._head import head

Options = LinearOptions


class Linear(nn.Module):
    def __init__(self, dim: int, n_classes: int) -> None:
        super().__init__()
        self.dim = dim
        self.classifier = head(dim, n_classes)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return x


def build(options: LinearOptions, n_classes: int) -> nn.Module:
    return Linear(math.prod(shape_of(options.input)), n_classes)
