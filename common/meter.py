"""What a task costs on the device: seconds by phase, CPU seconds, resident memory, named spans, counts.

Resident memory is read with psutil by a thread every few milliseconds. On Linux the kernel's own high-water mark is
reset at the start and taken into account, so that a peak between two samples is not missed; and free heap is given
back to the system first (malloc_trim), so that a task which reuses the last one's heap does not look free.
"""

import ctypes
import functools
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

SAMPLE_S = 0.005
_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_HIGH_WATER = b"5"  # proc(5)


@dataclass(eq=False)
class Span:
    """A metered stretch of work. `data_bytes` and `model_bytes` are set by whoever knows them."""

    name: str
    n_samples: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    rss_start_bytes: int = 0
    rss_peak_bytes: int = 0
    data_bytes: int = 0
    model_bytes: int = 0

    @property
    def rss_peak_delta_bytes(self) -> int:
        return max(0, self.rss_peak_bytes - self.rss_start_bytes)


@dataclass
class Measured:
    """A task's costs. `whole` covers what ran inside `Meter.measuring`; phases may lie outside it."""

    whole: Span = field(default_factory=lambda: Span("train"))
    vm_hwm_bytes: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    spans: list[Span] = field(default_factory=list)
    counts: dict[str, float] = field(default_factory=dict)


class Meter:
    """Meters one task. Phases, spans and counts are called from one thread; only the sampler is another."""

    def __init__(self, sample_s: float = SAMPLE_S) -> None:
        self.measured = Measured()
        self._sample_s = sample_s
        self._process = psutil.Process()
        self._open: list[Span] = []  # innermost last; appended to and removed from by the task's thread only
        self._raising = threading.Lock()
        self._high_water = False

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add this stretch's wall seconds to the phase."""
        begin = time.monotonic()
        try:
            yield
        finally:
            seconds = self.measured.seconds
            seconds[name] = seconds.get(name, 0.0) + time.monotonic() - begin

    def count(self, name: str, n: float) -> None:
        self.measured.counts[name] = self.measured.counts.get(name, 0.0) + n

    @contextmanager
    def measuring(self) -> Iterator[Span]:
        """Meter memory and CPU seconds; once per meter."""
        trim_heap()
        self._high_water = reset_high_water()
        stopped = threading.Event()
        sampler = threading.Thread(target=self._sample, args=(stopped,), name="meter", daemon=True)
        sampler.start()
        try:
            with self._stretch(self.measured.whole):
                yield self.measured.whole
        finally:
            stopped.set()
            sampler.join()
            self.measured.vm_hwm_bytes = self.measured.whole.rss_peak_bytes if self._high_water else 0

    @contextmanager
    def span(self, name: str, n_samples: int = 0) -> Iterator[Span]:
        """Meter a named part of the task, inside `measuring`; spans may nest."""
        span = Span(name, n_samples)
        try:
            with self._stretch(span):
                yield span
        finally:
            self.measured.spans.append(span)

    @contextmanager
    def _stretch(self, span: Span) -> Iterator[None]:
        if self._high_water and self._open:
            self._raise_peaks(high_water_bytes())  # the mark belongs to the outer spans; the reset forgets it
            reset_high_water()
        span.rss_start_bytes = span.rss_peak_bytes = self._rss()
        self._open.append(span)
        begin, cpu = time.monotonic(), time.process_time()
        try:
            yield
        finally:
            span.seconds += time.monotonic() - begin
            span.cpu_s += time.process_time() - cpu
            self._raise_peaks(max(self._rss(), high_water_bytes() if self._high_water else 0))
            self._open.remove(span)

    def _sample(self, stopped: threading.Event) -> None:
        while not stopped.wait(self._sample_s):
            self._raise_peaks(self._rss())

    def _raise_peaks(self, rss: int) -> None:
        with self._raising:
            for span in tuple(self._open):
                span.rss_peak_bytes = max(span.rss_peak_bytes, rss)

    def _rss(self) -> int:
        return int(self._process.memory_info().rss)


def high_water_bytes() -> int:
    """Linux's VmHWM of this process since its last reset."""
    with _STATUS.open("rb") as status:
        for line in status:
            if line.startswith(b"VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def reset_high_water() -> bool:
    """Start VmHWM again from the present RSS; False where the system does not let us."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        _CLEAR_REFS.write_bytes(_RESET_HIGH_WATER)
    except OSError:  # a kernel without it, or a sandbox: the sampler alone measures
        return False
    return True


def trim_heap() -> None:
    """Give freed memory back to the system, where the C library can."""
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    """The C library's malloc_trim; only glibc has it."""
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):
            trim: Callable[[int], int] = ctypes.CDLL("libc.so.6").malloc_trim
            return trim
    return None
