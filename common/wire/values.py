"""Checks of an array's values as its bytes arrive: finite, ascending, nothing beyond the end."""

import numpy as np
from numpy.typing import NDArray

from common import pb
from common.payloads import Array
from common.wire import dtypes
from common.wire.limits import Limits
from common.wire.refusal import refused
from common.wire.slots import Slot

# Half-precision floats are looked at as bits: numpy has no fast isfinite for one, and no type for the other.
_EXPONENT: dict[int, int] = {pb.FLOAT16: 0x7C00, pb.BFLOAT16: 0x7F80}
_FLOATS = frozenset({pb.FLOAT32, pb.FLOAT64, *_EXPONENT})


class Values:
    """Checks one array, given its bytes in order in pieces of whole elements."""

    def __init__(self, slot: Slot, *, limits: Limits, where: str) -> None:
        self._slot = slot
        self._where = where
        self._finite = not limits.allow_non_finite and slot.wire in _FLOATS
        self._n_seen = 0
        self._last = -1  # last sparse index seen

    def resume(self, seen: memoryview) -> None:
        """Take up after bytes that were checked when they came."""
        self._n_seen = len(seen)
        if self._slot.below is not None:
            self._last = int(dtypes.elements(seen, self._slot.wire)[-1])

    def feed(self, data: bytes | memoryview) -> None:
        slot = self._slot
        if self._finite:
            self._check_finite(data)
        elif slot.below is not None:
            self._check_indices(dtypes.elements(data, slot.wire).astype(np.int64), slot.below)
        elif slot.wire == pb.BOOL and slot.n % 8 and self._n_seen + len(data) == slot.n_bytes:
            beyond = data[-1] >> (slot.n % 8)
            if beyond:
                raise refused(self._where, slot.name, f"{slot.n} bits and zeros after them", "a bit beyond the end")
        self._n_seen += len(data)

    def _check_finite(self, data: bytes | memoryview) -> None:
        wire = self._slot.wire
        mask = _EXPONENT.get(wire)
        if mask is None:
            values = dtypes.elements(data, wire)
            finite: Array = np.isfinite(values)
        else:
            finite = (np.frombuffer(data, "<u2") & mask) != mask
        if not finite.all():
            at = self._n_seen // dtypes.wire_bytes(wire, 1) + int(np.argmin(finite))
            got = f"NaN or Inf at element {at}"
            raise refused(self._where, f"{self._slot.name}", "finite numbers (the run's wire.non_finite)", got)

    def _check_indices(self, indices: NDArray[np.int64], below: int) -> None:
        if not len(indices):
            return
        first = int(indices[0])
        if first < 0:
            raise refused(self._where, self._slot.name, f"indices from 0 to {below - 1}", first)
        if first <= self._last or not (indices[1:] > indices[:-1]).all():
            raise refused(
                self._where, self._slot.name, "ascending indices, each once", "one that is not above the last"
            )
        self._last = int(indices[-1])
        if self._last >= below:
            raise refused(self._where, self._slot.name, f"indices from 0 to {below - 1}", self._last)
