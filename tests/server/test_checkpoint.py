"""A checkpoint names payloads that a power cut cannot take away any more: fsync, rename, folder, then the commit."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from common import files, pb
from server.journal import Journal
from tests.server.devices import RUN
from tests.server.workshop import Workshop


def test_every_payload_of_a_checkpoint_is_on_the_disk_before_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    checkpoints: dict[bytes, tuple[int, list[str]]] = {}  # digest -> when, payloads
    fsync_file, fsync_folder, replace, commit = files.fsync_file, files.fsync_folder, files.replace, Journal.commit

    def recorded_replace(src: Path, dst: Path) -> None:
        replace(src, dst)
        events.append(f"name {dst.name}")

    @contextmanager
    def recorded_commit(self: Journal) -> Iterator[sqlite3.Connection]:
        with commit(self) as db:
            yield db
        row = None if db.in_transaction else db.execute("SELECT digest, record FROM checkpoints").fetchone()
        if row is not None and row["digest"] not in checkpoints:
            payloads = [ref.sha256.hex() for ref in pb.Record.FromString(row["record"]).payloads]
            checkpoints[row["digest"]] = (len(events), payloads)

    monkeypatch.setattr(files, "fsync_file", lambda fd: (fsync_file(fd), events.append("file")))
    monkeypatch.setattr(files, "fsync_folder", lambda path: (fsync_folder(path), events.append(f"folder {path.name}")))
    monkeypatch.setattr(files, "replace", recorded_replace)
    monkeypatch.setattr(Journal, "commit", recorded_commit)
    with Workshop(tmp_path) as shop:
        shop.join(["a", "b"])
        shop.runs.start()
        assert shop.ended(shop.runs.submit(RUN, "run").run).status == "done"
    assert len(checkpoints) == 3
    for when, payloads in checkpoints.values():
        assert payloads
        for payload in payloads:
            named = events.index(f"name {payload}")
            assert "file" in events[:named]
            assert "folder blobs" in events[named:when]
