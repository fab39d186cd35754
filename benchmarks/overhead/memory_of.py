"""Memory of another process on Linux: what /proc tells, and the peak of its anonymous pages while something runs."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common.errors import ConfigError

SAMPLE_S = 0.005


@dataclass
class Peaks:
    """High-water mark of resident memory (the kernel's own), and of its anonymous part (sampled), in bytes."""

    vm_hwm_bytes: int = 0
    rss_anon_bytes: int = 0


def status(pid: int) -> dict[str, int]:
    """The sizes in /proc/PID/status, in bytes.

    Raises:
        ConfigError: this system has no /proc.
    """
    path = Path(f"/proc/{pid}/status")
    if not path.exists():
        raise ConfigError("memory of another process is read from /proc, which only Linux has")
    rows = (line.split() for line in path.read_text().splitlines() if line.endswith(" kB"))
    return {name.rstrip(":"): int(value) * 1024 for name, value, _ in rows}


@contextlib.contextmanager
def peaks(pid: int) -> Iterator[Peaks]:
    """Peaks between entering and leaving."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # resets the high-water mark, proc(5)
    found, done = Peaks(), threading.Event()

    def sample() -> None:
        while not done.wait(SAMPLE_S):
            found.rss_anon_bytes = max(found.rss_anon_bytes, status(pid)["RssAnon"])

    thread = threading.Thread(target=sample, name="memory-of", daemon=True)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()
        now = status(pid)
        found.vm_hwm_bytes = now["VmHWM"]
        found.rss_anon_bytes = max(found.rss_anon_bytes, now["RssAnon"])
