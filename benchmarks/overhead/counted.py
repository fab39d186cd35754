"""Runs one of our programs and counts its fsyncs: `python -m benchmarks.overhead.counted FILE MODULE ARGS…`.

Counts are os.fsync and the commits of SQLite, which in WAL mode with synchronous=FULL call fsync once each; its rare
checkpoints (every 1,000 pages) are not seen. The counts are written to FILE.PID when the program ends.
"""

import atexit
import os
import runpy
import sqlite3
import sys
from collections import Counter
from pathlib import Path
from typing import Any

COUNTS: Counter[str] = Counter()


def _counting_fsync(fsync: Any) -> Any:  # Any: what stands in for a built-in function
    def counted(fd: Any) -> None:
        COUNTS["fsync"] += 1
        fsync(fd)

    return counted


def _counting_connect(connect: Any) -> Any:  # Any: as above
    def counted(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        db: sqlite3.Connection = connect(*args, **kwargs)
        db.set_trace_callback(_seen)
        return db

    return counted


def _seen(statement: str) -> None:
    COUNTS["commit"] += statement.startswith("COMMIT")


def main() -> None:
    file, module, *args = sys.argv[1:]
    os.fsync = _counting_fsync(os.fsync)
    sqlite3.connect = _counting_connect(sqlite3.connect)
    atexit.register(lambda: Path(f"{file}.{os.getpid()}").write_text(f"{COUNTS['fsync']} {COUNTS['commit']}"))
    sys.argv = [module, *args]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def total(file: Path) -> int:
    """Fsyncs of all programs that were given that file."""
    counts = [path.read_text() for path in file.parent.glob(f"{file.name}.*")]
    return sum(int(word) for text in counts for word in text.split())


if __name__ == "__main__":
    main()
