from torch import nn


def head(dim: int, n_classes: int) -> nn.Module:
    """The classifier; without classes (self-supervised runs) an Identity, which has no tensors."""
    return nn.Linear(dim, n_classes) if n_classes else nn.Identity()
