"""Lazy views of an agent's samples: nothing is read until a batch is asked for, labels excepted.

An agent must load only the samples that its task needs, so a view is a list of positions into a source, and
`relabel` looks at labels alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
UNLABELLED = -1


class Source(Protocol):
    """Where samples lie: a folder of images, arrays in a file. `digest` names its content for caches.

    `mean` and `std` are those of the data set, one per channel, of pixels divided by 255; empty when it states none.
    Whoever makes a batch of uint8 images applies (pixel / 255 - mean) / std.
    """

    @property
    def digest(self) -> str: ...
    @property
    def labels(self) -> Labels:
        """(n,), UNLABELLED where there is none."""
        ...

    @property
    def mean(self) -> tuple[float, ...]: ...
    @property
    def std(self) -> tuple[float, ...]: ...

    def read(self, positions: NDArray[np.int64]) -> NDArray[np.generic]:
        """The samples at these positions: (k, …), images as uint8 (k, height, width, channels)."""
        ...


@dataclass(frozen=True, eq=False)
class ArraySource:
    """Samples that are in memory, or in a memory-mapped file."""

    x: NDArray[np.generic]
    labels: Labels
    digest: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def read(self, positions: NDArray[np.int64]) -> NDArray[np.generic]:
        return self.x[positions]


@dataclass(frozen=True, eq=False)
class Samples:
    """A view: `positions` into a source, with labels that may have been changed by `relabel`."""

    source: Source
    positions: NDArray[np.int64]
    labels: Labels
    n_classes: int

    def __len__(self) -> int:
        return len(self.positions)

    def take(self, which: NDArray[np.int64]) -> "Samples":
        """The samples at these places of the view, in this order."""
        return Samples(self.source, self.positions[which], self.labels[which], self.n_classes)

    def relabel(self, table: NDArray[np.int64], n_classes: int | None = None) -> "Samples":
        """The view with class c turned into table[c]; -1 drops the sample. Reads labels only."""
        labels = table[self.labels]
        kept = np.flatnonzero(labels >= 0)
        size = int(table.max(initial=-1)) + 1 if n_classes is None else n_classes
        return Samples(self.source, self.positions[kept], labels[kept], size)

    def unlabelled(self) -> "Samples":
        """The same samples without their labels."""
        return Samples(self.source, self.positions, np.full(len(self), UNLABELLED, np.int64), 0)

    def counts(self) -> NDArray[np.int64]:
        """Samples per class, (n_classes,)."""
        return np.bincount(self.labels[self.labels >= 0], minlength=self.n_classes).astype(np.int64)

    def read(self, which: NDArray[np.int64] | None = None) -> NDArray[np.generic]:
        """The samples themselves, all or at these places of the view."""
        return self.source.read(self.positions if which is None else self.positions[which])

    def batches(self, size: int) -> Iterator[tuple[NDArray[np.generic], Labels]]:
        """In order, in batches of `size`; the last may be smaller."""
        for start in range(0, len(self), size):
            which = np.arange(start, min(start + size, len(self)))
            yield self.read(which), self.labels[which]


def view(source: Source, n_classes: int) -> Samples:
    """All samples of a source."""
    return Samples(source, np.arange(len(source.labels)), source.labels, n_classes)


def from_arrays(x: NDArray[np.generic], labels: Labels, n_classes: int, *, digest: str = "") -> Samples:
    return view(ArraySource(x, labels.astype(np.int64), digest), n_classes)
