"""The weight-space term, the same in every learner: strength / 2 * ||w - anchor||^2 over the tensors of the anchor."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np

from common.errors import LocalFault
from common.method import Term
from edge_client.learners.layout import Flat, Layout


@dataclass(frozen=True, eq=False)
class Pull:
    """Adds strength * (w - anchor) to the gradient in these slices."""

    strength: float
    anchor: Flat
    runs: list[slice]


def pulls(terms: Iterable[Term], layout: Layout, trainable: Collection[str]) -> list[Pull]:
    """Tensors that the anchor lacks, that are not params, or that are frozen, are not pulled."""
    found = []
    for term in terms:
        if term.name != "proximal":
            continue
        for name, array in term.arrays.items():
            if name in layout.shapes and np.shape(array) != layout.shapes[name]:
                shapes = f"expected shape {list(layout.shapes[name])}, got {list(np.shape(array))}"
                raise LocalFault(f"anchor of term 'proximal', tensor {name!r}: {shapes}")
        names = [name for name in term.arrays if name in trainable]
        if term.strength:
            found.append(Pull(term.strength, layout.flat(term.arrays), layout.runs(names)))
    return found
