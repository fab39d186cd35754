"""All param tensors of a model in one flat vector, so that an optimiser step is a few operations, not a few each."""

from collections.abc import Iterable, Mapping
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from common.method import Spec
from common.payloads import Array

Flat = NDArray[np.float32]
_ALIGNED = 16  # float32 values: 64 bytes, what vector units and oneDNN like


class Layout:
    """Where each param tensor lies. The gaps that alignment leaves hold zeros and stay zero under every optimiser."""

    def __init__(self, specs: Mapping[str, Spec]) -> None:
        self.shapes = {name: spec.shape for name, spec in specs.items() if spec.kind == "param"}
        sizes = [-(-int(np.prod(shape)) // _ALIGNED) * _ALIGNED for shape in self.shapes.values()]
        ends = list(accumulate(sizes, initial=0))
        self._room = {name: slice(a, b) for name, (a, b) in zip(self.shapes, pairwise(ends), strict=True)}
        self.size = ends[-1]

    def place(self, name: str) -> slice:
        start = self._room[name].start
        return slice(start, start + int(np.prod(self.shapes[name])))

    def runs(self, names: Iterable[str]) -> list[slice]:
        """These tensors as few slices: neighbours are one. Names that are not params are ignored."""
        wanted = set(names)
        found: list[slice] = []
        for name, room in self._room.items():
            if name not in wanted:
                continue
            if found and found[-1].stop == room.start:
                room = slice(found.pop().start, room.stop)
            found.append(room)
        return found

    def views(self, flat: Flat) -> dict[str, Flat]:
        return {name: flat[self.place(name)].reshape(shape) for name, shape in self.shapes.items()}

    def flat(self, arrays: Mapping[str, Array]) -> Flat:
        """A new vector with these arrays in their places; zeros for tensors that are not given."""
        vector = np.zeros(self.size, np.float32)
        self.fill(vector, arrays)
        return vector

    def fill(self, vector: Flat, arrays: Mapping[str, Array]) -> None:
        for name, shape in self.shapes.items():
            if name in arrays:
                np.copyto(vector[self.place(name)].reshape(shape), arrays[name])
