"""A data set before it is divided: one source for all agents of a process."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from common.errors import EXIT_DATA, ConfigError
from common.samples import Labels, Source


@dataclass(frozen=True)
class Pool:
    """All samples of one data set as one source: training, then test, then unlabelled ones.

    `n_test` None: the data come as one part, to be split.
    """

    name: str
    classes: tuple[str, ...]
    source: Source
    n_train: int
    n_test: int | None
    n_extra: int = 0


@dataclass(frozen=True, eq=False)
class ChosenSource:
    """Some samples of a source, in the order of `positions`."""

    source: Source
    positions: NDArray[np.int64]
    digest: str

    @property
    def labels(self) -> Labels:
        return self.source.labels[self.positions]

    @property
    def mean(self) -> tuple[float, ...]:
        return self.source.mean

    @property
    def std(self) -> tuple[float, ...]:
        return self.source.std

    def read(self, positions: NDArray[np.int64]) -> NDArray[np.generic]:
        return self.source.read(self.positions[positions])

    def file(self, position: int) -> Path | None:
        return file_of(self.source, int(self.positions[position]))


def file_of(source: Source, position: int) -> Path | None:
    """The image file of a sample, for whoever decodes it in another size; None where there are none."""
    file = getattr(source, "file", None)
    return None if file is None else cast(Path, file(position))


def first_classes(pool: Pool, n_classes: int | None) -> Pool:
    """The pool with its first classes alone; samples without a label stay.

    Raises:
        ConfigError: it has not so many.
    """
    if n_classes is None or n_classes == len(pool.classes):
        return pool
    if not 1 <= n_classes <= len(pool.classes):
        raise ConfigError(
            f"[data] n_classes must be in 1..{len(pool.classes)} for data set {pool.name!r}, got {n_classes}",
            exit_code=EXIT_DATA,
        )
    positions = np.flatnonzero(pool.source.labels < n_classes)
    ends = np.searchsorted(positions, np.cumsum([pool.n_train, pool.n_test or 0, pool.n_extra]))
    n_train, n_test, n_extra = np.diff(ends, prepend=0).tolist()
    digest = f"{pool.source.digest} first {n_classes}" if pool.source.digest else ""
    source = ChosenSource(pool.source, positions, digest)
    some = pool.classes[:n_classes]
    return Pool(pool.name, some, source, n_train, None if pool.n_test is None else n_test, n_extra)
