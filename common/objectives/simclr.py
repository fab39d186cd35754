"""SimCLR: two random views of an image attract each other, all other images of the batch repel.

Source: Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, ICML 2020, eq. 1 and
    appendix A (augmentation), B.9 (the small-image recipe: half the colour strength, no blur).
Deviation: colour operations in a fixed order, as one affine map per image (`_augment.recoloured`).

Both views go through the net in one forward, so that batch norm can not tell them apart. The projection head is the
objective's own (part "objective") and is dropped after pre-training.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from common.errors import ConfigError
from common.objectives import Seen, _augment

LABELS = False
RANDOM = True


@dataclass(frozen=True)
class Options:
    temperature: float = 0.5
    projection: int = 128
    crop_min: float = 0.2  # smallest crop, share of the area
    strength: float = 0.5  # of colour; 1 at 224 pixels
    hue: float = 0.1  # in turns; flowers are told apart by it
    grey_share: float = 0.2
    blur_share: float = 0.0  # 0.5 at 224 pixels

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf or self.projection < 1:
            raise ValueError(
                f"temperature must be above 0 and projection at least 1, got {self.temperature} and {self.projection}"
            )
        shares = (self.crop_min, self.strength, self.hue, self.grey_share, self.blur_share)
        if not all(0 <= share <= 1 for share in shares) or not self.crop_min:
            raise ValueError(
                "crop_min must be in (0, 1], strength, hue, grey_share and blur_share in [0, 1], got "
                + ", ".join(map(str, shares))
            )


def views(x: torch.Tensor, noise: torch.Generator | None, options: Options) -> tuple[torch.Tensor, ...]:
    """Two views of (n, 3, height, width) in [0, 1].

    Raises:
        ConfigError: fewer than two images, no colour images in [0, 1], or options under which both views are alike.
    """
    if len(x) < 2:
        raise ConfigError(f"contrast needs at least two images in a batch, got {len(x)}; raise optimiser.batch")
    if x.shape[1] != 3 or float(x.min()) < 0 or float(x.max()) > 1:
        raise ConfigError(
            f"simclr augments colour images (3 channels) with values in [0, 1], got {x.shape[1]} channels from "
            f"{float(x.min()):.2f} to {float(x.max()):.2f}; give it colour images that were not normalised"
        )
    if noise is None:
        raise ValueError("simclr draws random views, and was given no generator")
    first, second = _view(x, noise, options), _view(x, noise, options)
    if float((first - second).abs().max()) < 1e-5:  # interpolation alone moves values by less
        raise ConfigError(
            "both views are identical, so there is nothing to learn; raise simclr's crop or colour options"
        )
    return first, second


def loss(seen: Seen, options: Options) -> torch.Tensor:
    if seen.objective is None:
        raise ValueError("simclr needs its projection head; was the model built for another objective?")
    first, second = (seen.objective(embedding) for embedding in seen.embeddings)
    return nt_xent(first, second, options.temperature)


def nt_xent(first: torch.Tensor, second: torch.Tensor, temperature: float) -> torch.Tensor:
    """Normalised temperature-scaled cross-entropy, mean over the 2n anchors.

    Args:
        first: (n, dim) projections of n images.
        second: those of their other views; row i of one is the positive of row i of the other.
        temperature: above 0.

    Raises:
        ValueError: n < 2; there would be no negatives.
    """
    n = len(first)
    if n < 2:
        raise ValueError(f"contrast needs at least two images, got {n}")
    z = F.normalize(torch.cat([first, second]), dim=1)
    similarity = (z @ z.T / temperature).fill_diagonal_(float("-inf"))  # (2n, 2n)
    positive = torch.arange(2 * n, device=z.device).roll(n)
    return F.cross_entropy(similarity, positive)


def build(dim: int, options: Options) -> nn.Module:
    """The projection head g: dim -> dim -> projection."""
    return nn.Sequential(
        nn.Linear(dim, dim, bias=False), nn.BatchNorm1d(dim), nn.ReLU(), nn.Linear(dim, options.projection)
    )


def _view(x: torch.Tensor, noise: torch.Generator, options: Options) -> torch.Tensor:
    x = _augment.crop_and_flip(x, options.crop_min, noise)
    x = _augment.recoloured(x, options.strength, options.hue, options.grey_share, noise)
    return _augment.some_blurred(x, options.blur_share, noise) if options.blur_share else x
