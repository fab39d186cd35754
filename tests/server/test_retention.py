from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from common.blobs import Blobs
from common.payloads import Weights
from common.task_key import Key
from server import retention
from server.journal import Journal


class Store:
    def __init__(self, folder: Path) -> None:
        self.journal = Journal(folder)
        self.blobs = Blobs(folder / "blobs")

    def put(self, value: float) -> bytes:
        ref = self.blobs.put(Weights({"w": np.full(3, value, np.float32)}))
        return bytes(ref.sha256)

    def sweep(self) -> int:
        return retention.sweep(self.journal, self.blobs)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path)
    yield store
    store.journal.close()


def test_a_payload_goes_when_its_last_owner_lets_go(store: Store) -> None:
    one, other = store.put(1), store.put(2)
    retention.own(store.journal, "checkpoint run", [one, other])
    retention.own(store.journal, "result run", [one])
    retention.own(store.journal, "checkpoint run", [])
    assert store.sweep() == 1
    assert store.blobs.digests() == {one}
    retention.own(store.journal, "result run", [])
    assert store.sweep() == 1
    assert store.blobs.digests() == set()


def test_a_file_that_the_disk_does_not_let_go_of_is_tried_again(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = store.put(1)
    retention.own(store.journal, "checkpoint run", [one])
    retention.own(store.journal, "checkpoint run", [])
    with monkeypatch.context() as failing:
        failing.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(OSError(30, "Read-only file system")))
        assert store.sweep() == 0
    assert "not_swept reason=[Errno 30] Read-only file system" in caplog.text
    assert store.sweep() == 1


def test_what_is_held_stays_until_it_is_let_go(store: Store) -> None:
    one = store.put(1)
    retention.own(store.journal, "checkpoint run", [one])
    retention.pin(store.journal, "upload", [one])
    retention.own(store.journal, "checkpoint run", [])
    assert store.sweep() == 0
    retention.unpin(store.journal, "upload")
    assert store.sweep() == 1


def test_replies_of_one_step_are_let_go_and_no_others(store: Store) -> None:
    digests = {}
    for number, key in enumerate(
        [Key("r", 1, "a", 0), Key("r", 1, "b/x", 0), Key("r", 10, "a", 0), Key("r1", 1, "a", 0)]
    ):
        digests[key] = store.put(number)
        retention.own(store.journal, retention.reply_owner(key), [digests[key]])
    retention.disown_replies(store.journal, "r", 1)
    assert store.sweep() == 2
    assert store.blobs.digests() == {digests[Key("r", 10, "a", 0)], digests[Key("r1", 1, "a", 0)]}


def test_what_a_crash_left_without_an_owner_goes_at_the_first_sweep(store: Store) -> None:
    owned, orphan = store.put(1), store.put(2)
    retention.own(store.journal, "checkpoint run", [owned])
    assert store.sweep() == 0
    retention.consider_all(store.journal, store.blobs)
    assert store.sweep() == 1
    assert orphan not in store.blobs.digests()


def test_a_payload_that_vanishes_between_writing_and_holding_is_written_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin, swept = retention.pin, []

    def late(*args: object) -> None:
        if not swept:
            swept.append(store.sweep())
        pin(*args)  # type: ignore[arg-type]

    one = store.put(1)
    retention.own(store.journal, "checkpoint run", [one])
    retention.own(store.journal, "checkpoint run", [])
    monkeypatch.setattr(retention, "pin", late)
    payload = Weights({"w": np.full(3, 1, np.float32)})
    assert retention.put_pinned(store.journal, store.blobs, "step", payload, "exact").sha256 == one
    assert swept == [1]
    assert store.blobs.digests() == {one}
