"""Torch models, one file each, found by name; files that begin with an underscore are shared parts.

A net's file has `Options`, a frozen dataclass whose every field has a default (among them `input`), and
`build(options, n_classes) -> nn.Module`. A net of images has the option `channels_last`: whether the CPU works in that
memory layout, which took 10 to 30 % off a training step of each net here (one thread, AVX-512), and rounds otherwise.
The module takes (n, channels, height, width) float32 and has

    features(x) -> (n, dim)       the layer that is called "embedding"
    dim: int                      its size
    classifier                    embedding -> scores; the head. With no classes it is an Identity
    terms: {name: term -> loss}   optional: loss-space terms that only this net has

All that it needs is in its state_dict: it is built without storage, then filled from the given weights. What is frozen
for good (`prompted`'s text tower) is kept outside. A net with the option `classes` is told the class names.
"""

import importlib
from functools import cache
from pathlib import Path
from types import ModuleType

from common.errors import UnknownName


@cache
def names() -> tuple[str, ...]:
    return tuple(sorted(p.stem for p in Path(__file__).parent.glob("*.py") if not p.stem.startswith("_")))


def load(name: str) -> ModuleType:
    """The net's file. Errors raised while importing it pass through.

    Raises:
        UnknownName: this build has no such net.
    """
    if name not in names():
        raise UnknownName("model", name, names())
    return importlib.import_module(f"common.nets.{name}")
