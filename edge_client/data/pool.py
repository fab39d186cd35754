"""A data set before it is divided: one source for all agents of a process."""

from dataclasses import dataclass

from common.samples import Source


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
