"""Cross-entropy on randomly cropped and mirrored images: supervised training that small image sets need."""

from dataclasses import dataclass

import torch

from common.objectives import _augment
from common.objectives.cross_entropy import loss

__all__ = ["LABELS", "RANDOM", "Options", "loss", "views"]

LABELS = True
RANDOM = True


@dataclass(frozen=True)
class Options:
    crop_min: float = 0.4  # smallest crop, share of the area

    def __post_init__(self) -> None:
        if not 0 < self.crop_min <= 1:
            raise ValueError(f"crop_min must be in (0, 1], got {self.crop_min}")


def views(x: torch.Tensor, noise: torch.Generator | None, options: Options) -> tuple[torch.Tensor, ...]:
    if noise is None:
        raise ValueError("random crops need a generator, and none was given")
    return (_augment.crop_and_flip(x, options.crop_min, noise),)
