"""ResNet-50."""

from torch import nn
from torchvision import models

from common.nets import _resnet

Options = _resnet.Options


def build(options: Options, n_classes: int) -> nn.Module:
    return _resnet.build(models.resnet50(weights=None), options, n_classes)
