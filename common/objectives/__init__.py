"""Objectives, one file each, found by name: what a learner minimises, and what it shows the net. They need torch.

An objective's file has

    Options                                   frozen dataclass; every field has a default
    LABELS: bool                              whether every sample must have a label
    RANDOM: bool                              whether `views` draws from `noise`, which is None otherwise
    views(x, noise, options) -> (x, …)        what the net sees of a batch (n, channels, height, width) of pixels in
                                              [0, 1], one or more tensors of n rows; the learner applies the data set's
                                              mean and std to them afterwards. Random ones draw from `noise`
    loss(seen, options) -> scalar             mean over the batch
    build(dim, options) -> nn.Module          optional: tensors of its own (a projection head), part "objective"

`Seen` is what the learner gives to `loss` and to loss-space terms.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from common.errors import UnknownName

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Seen:
    """One batch through the net: an embedding (n, dim) per view, the labels (n,), and the two heads."""

    embeddings: tuple["Tensor", ...]
    labels: "Tensor"
    classify: "Callable[[Tensor], Tensor]"
    objective: "Callable[[Tensor], Tensor] | None" = None


@cache
def names() -> tuple[str, ...]:
    return tuple(sorted(p.stem for p in Path(__file__).parent.glob("*.py") if not p.stem.startswith("_")))


def load(name: str) -> ModuleType:
    """The objective's file. Errors raised while importing it pass through.

    Raises:
        UnknownName: this build has no such objective.
    """
    if name not in names():
        raise UnknownName("objective", name, names())
    return importlib.import_module(f"common.objectives.{name}")
