"""The server is killed at every durable moment of a run; the next one ends in the same State.

The kill is an exception that nothing catches, raised in place of an fsync, a rename or a commit of the server; from
then on that server writes nothing. A second one opens the same folder.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from common import files, pb
from common.task_key import Key
from server import retention
from server.journal import Journal
from tests.server.devices import RUN, Killed
from tests.server.workshop import Workshop

NAMES = ["a", "b"]
TEXT = RUN.replace("every = 0", "every = 2")


class Point:
    """Ends the server at its n-th durable moment."""

    def __init__(self, at: int | None) -> None:
        self._at = at
        self._lock = threading.Lock()
        self.seen: list[str] = []
        self.struck = threading.Event()
        self.wake: Callable[[], None] = lambda: None

    def pass_by(self, what: str) -> None:
        with self._lock:
            if self.struck.is_set() or len(self.seen) == self._at:
                self.struck.set()
                self.wake()
                raise Killed(what)  # a dead process writes nothing more
            self.seen.append(what)


@contextmanager
def watched(point: Point, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The file layer and the journal go through the point; folders of agents are not durable and make no fsync."""
    fsync_file, fsync_folder, replace, commit = files.fsync_file, files.fsync_folder, files.replace, Journal.commit

    def watched_fsync(fd: int) -> None:
        point.pass_by("fsync")
        fsync_file(fd)

    def watched_fsync_folder(path: Path) -> None:
        point.pass_by("fsync folder")
        fsync_folder(path)

    def watched_replace(src: Path, dst: Path) -> None:
        if not any(part.startswith("device-") for part in dst.parts):
            point.pass_by("replace")
        replace(src, dst)

    @contextmanager
    def watched_commit(self: Journal) -> Iterator[sqlite3.Connection]:
        with commit(self) as db:
            yield db
            if self._depth == 1:
                point.pass_by("commit")

    with monkeypatch.context() as patch:
        patch.setattr(files, "fsync_file", watched_fsync)
        patch.setattr(files, "fsync_folder", watched_fsync_folder)
        patch.setattr(files, "replace", watched_replace)
        patch.setattr(Journal, "commit", watched_commit)
        patch.setattr(threading, "excepthook", lambda _: None)
        yield


def until_killed(folder: Path, point: Point, monkeypatch: pytest.MonkeyPatch) -> None:
    with watched(point, monkeypatch):
        shop = Workshop(folder)
        with suppress(Killed):
            shop.join(NAMES)
            shop.runs.start()
            shop.runs.submit(TEXT, "run")
            events = shop.runs.watch("run")
            point.wake = lambda: events.put(None)
            while not point.struck.is_set() and events.get(timeout=60) is not None:
                pass
        shop.close()


def to_the_end(folder: Path) -> str:
    with Workshop(folder) as shop:
        if shop.journal.summary("run") is None:
            shop.runs.submit(TEXT, "run")
        rows = shop.journal.rows("SELECT run, step, agent, kind FROM replies")
        accepted = {Key(*row) for row in rows}
        shop.runs.start()
        agents = shop.join(NAMES)
        summary = shop.ended("run")
        assert summary.status == "done", summary.reason
        offered = [Key.of(o.key) for device in agents.values() for o in device.offers if o.key.kind != pb.PREPARE]
        assert not accepted & set(offered), "an accepted reply was asked for again"
        assert len(offered) == len(set(offered))
        assert len(shop.runs.detail("run").evaluations) == 1
        shop.runs.close()  # the end is told before the engine lets go of what it held
        retention.sweep(shop.journal, shop.blobs)
        assert not shop.journal.rows("SELECT * FROM pins")
        assert shop.blobs.digests() == {bytes(row[0]) for row in shop.journal.rows("SELECT sha256 FROM refs")}
        return summary.state_sha256


@pytest.mark.slow
def test_a_server_killed_at_any_durable_moment_ends_in_the_same_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = Point(None)
    until_killed(tmp_path / "undisturbed", undisturbed, monkeypatch)
    expected = to_the_end(tmp_path / "undisturbed")
    assert undisturbed.seen.count("commit") >= 10
    for at, what in enumerate(undisturbed.seen):
        folder = tmp_path / str(at)
        until_killed(folder, Point(at), monkeypatch)
        assert to_the_end(folder) == expected, f"killed at moment {at}, {what}"
