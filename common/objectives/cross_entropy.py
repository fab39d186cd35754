"""Cross-entropy of the softmax of the scores: the supervised objective."""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from common.objectives import Seen

LABELS = True
RANDOM = False


@dataclass(frozen=True)
class Options:
    pass


def views(x: torch.Tensor, noise: torch.Generator | None, options: Options) -> tuple[torch.Tensor, ...]:
    return (x,)


def loss(seen: Seen, options: Options) -> torch.Tensor:
    return F.cross_entropy(seen.classify(seen.embeddings[0]), seen.labels)
