"""The samples that one task has loaded: each is read from its file once, kept as it is, and freed with the task."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from common.samples import Labels, Source
from edge_client.data.agent_data import AgentData


@dataclass(eq=False)
class Touched:
    """The samples that a stretch of work used, whether it or an earlier one loaded them."""

    which: NDArray[np.bool_]
    sample_bytes: int = 0

    @property
    def n(self) -> int:
        return int(np.count_nonzero(self.which))

    @property
    def n_bytes(self) -> int:
        return self.n * self.sample_bytes


class LoadedSource:
    """A source that remembers what it read. `positions` are all that will be asked for, in their usual order.

    Memory is reserved for all of them, and the system gives it only for those that are read.
    """

    def __init__(self, source: Source, positions: NDArray[np.int64]) -> None:
        self._source = source
        self._sorted, first = np.unique(positions, return_index=True)
        self._order = np.argsort(np.argsort(first))  # place in the buffer of each sorted position
        self._buffer: NDArray[np.generic] | None = None
        self._is_loaded = np.zeros(len(self._sorted), bool)
        self._touched: list[Touched] = []
        self.load_s = 0.0

    @property
    def digest(self) -> str:
        return self._source.digest

    @property
    def labels(self) -> Labels:
        return self._source.labels

    @property
    def mean(self) -> tuple[float, ...]:
        return self._source.mean

    @property
    def std(self) -> tuple[float, ...]:
        return self._source.std

    @contextmanager
    def touched(self) -> Iterator[Touched]:
        """What is used inside; may be nested."""
        touched = Touched(np.zeros(len(self._sorted), bool))
        self._touched.append(touched)
        try:
            yield touched
        finally:
            self._touched.remove(touched)

    def read(self, positions: NDArray[np.int64]) -> NDArray[np.generic]:
        """Read-only; a view of what is loaded where the positions follow each other."""
        places = self._order[np.searchsorted(self._sorted, positions)]
        buffer = self._loaded(places, positions)
        for touched in self._touched:
            touched.which[places] = True
            touched.sample_bytes = buffer[:1].nbytes
        follow_on = len(places) > 0 and bool((np.diff(places) == 1).all())
        found = buffer[places[0] : places[-1] + 1] if follow_on else buffer[places]
        found.flags.writeable = False
        return found

    def _loaded(self, places: NDArray[np.int64], positions: NDArray[np.int64]) -> NDArray[np.generic]:
        if self._buffer is not None and self._is_loaded[places].all():
            return self._buffer
        begin = time.monotonic()
        wanted = ~self._is_loaded[places]
        fresh = self._source.read(positions[wanted])
        if self._buffer is None:
            self._buffer = np.empty((len(self._sorted), *fresh.shape[1:]), fresh.dtype)
        self._buffer[places[wanted]] = fresh
        self._is_loaded[places] = True
        self.load_s += time.monotonic() - begin
        return self._buffer


def loaded(data: AgentData) -> tuple[AgentData, LoadedSource]:
    """The data over one source that remembers, for one task."""
    views = [data.train, data.test] + ([] if data.extra is None else [data.extra])
    source = LoadedSource(data.train.source, np.concatenate([view.positions for view in views]))
    train, test, *extra = (replace(view, source=source) for view in views)
    return replace(data, train=train, test=test, extra=extra[0] if extra else None), source
