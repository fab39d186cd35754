"""Features on disk by the content of what they were made of: one SQLite file a tower, for any number of processes."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import EXIT_STATE, ConfigError

if TYPE_CHECKING:
    import sqlite3

ASKED_AT_ONCE = 500
WAIT_S = 60.0  # for another process that writes


class FeatureStore:
    """`kind` keeps apart what one tower gives of an image."""

    def __init__(self, path: Path, kind: str) -> None:
        self._path, self._kind = path, kind

    def get(self, keys: set[bytes], size: int) -> dict[bytes, bytes]:
        """What is there and has that many bytes."""
        found: dict[bytes, bytes] = {}
        if not self._path.exists():
            return found
        with self._open() as base:
            wanted = sorted(keys)
            for start in range(0, len(wanted), ASKED_AT_ONCE):
                some = wanted[start : start + ASKED_AT_ONCE]
                places = ",".join("?" * len(some))
                rows = base.execute(
                    f"SELECT key, data FROM features WHERE kind = ? AND length(data) = ? AND key IN ({places})",
                    (self._kind, size, *some),
                )
                found.update(rows)
        return found

    def put(self, features: Mapping[bytes, bytes]) -> None:
        with self._open() as base:
            rows = [(self._kind, key, data) for key, data in features.items()]
            base.executemany("INSERT OR REPLACE INTO features VALUES (?, ?, ?)", rows)

    @contextlib.contextmanager
    def _open(self) -> Iterator["sqlite3.Connection"]:
        import sqlite3  # here: an idle agent has no use for it

        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.closing(sqlite3.connect(self._path, timeout=WAIT_S)) as base, base:
                base.execute("PRAGMA journal_mode = WAL")
                base.execute("PRAGMA synchronous = OFF")  # a cache: what a power cut loses is made again
                base.execute(
                    "CREATE TABLE IF NOT EXISTS features (kind TEXT, key BLOB, data BLOB, PRIMARY KEY (kind, key))"
                )
                yield base
        except (sqlite3.Error, OSError) as error:
            raise ConfigError(
                f"the cache of image features {self._path} cannot be used: {error}; free some space, remove the file, "
                f"or set EDGEFED_CACHE to another folder",
                exit_code=EXIT_STATE,
            ) from error
