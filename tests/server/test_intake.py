"""What a submit is answered, and in which order it becomes durable."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from common import files, pb
from common.blobs import Blobs
from common.errors import LocalFault, RemoteFault
from common.methods import fedavg
from common.payloads import Weights
from common.task_key import Key
from common.wire import records
from common.wire.limits import Limits
from server import retention
from server.events import Replied
from server.intake import Intake, Upload
from server.journal import Journal
from tests.server.devices import RUN
from tests.server.workshop import Workshop


class Desk:
    """An open step 0 of run "run" with tasks for agents a and b, and what an agent needs to reply."""

    def __init__(self, folder: Path, text: str = RUN) -> None:
        self.shop = Workshop(folder)
        self.shop.join(["a", "b"], before_submit=lambda *_: None)
        self.shop.runs.start()
        self.shop.runs.submit(text, "run")
        self.told: list[Key] = []
        for agent in self.shop.devices.values():
            agent.offered(pb.WORK)
        self.journal, self.blobs = self.shop.journal, self.shop.blobs
        self.intake = Intake(self.journal, self.blobs, self._notify)
        self.own = Blobs(folder / "own", durable=False)

    def _notify(self, event: Replied) -> None:
        self.told.append(event.key)

    def header(self, agent: str, value: float = 1.0, *, step: int = 0) -> pb.RecordHeader:
        arrays = {"classifier.weight": np.full((3, 4), value, np.float32), "classifier.bias": np.zeros(3, np.float32)}
        record = records.encode(fedavg.Reply(Weights(arrays), 5), self.own.put)
        return pb.RecordHeader(key=pb.TaskKey(run="run", step=step, agent=agent), record=record)

    def parts(self, header: pb.RecordHeader, offset: int = 0) -> list[bytes]:
        return list(self.own.parts(header.record.payloads[0].sha256, offset, 128))

    def submit(self, header: pb.RecordHeader) -> pb.Receipt:
        opened = self.intake.open(header)
        if isinstance(opened, pb.Receipt):
            return opened
        if opened.offsets[0] < header.record.payloads[0].size:
            for part in self.parts(header, opened.offsets[0]):
                opened.feed(part)
        return opened.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.shop.close()


def opened(desk: Desk, header: pb.RecordHeader) -> Upload:
    upload = desk.intake.open(header)
    assert isinstance(upload, Upload)
    return upload


def feed(upload: Upload, parts: list[bytes]) -> None:
    for part in parts:
        upload.feed(part)


def test_the_order_is_fsync_then_rename_then_folder_then_commit_then_receipt(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = desk.header("a")
    order: list[str] = []
    commit = Journal.commit

    @contextmanager
    def recorded(self: Journal) -> Iterator[sqlite3.Connection]:
        with commit(self) as db:
            yield db
        if not db.in_transaction:
            order.append("commit")

    fsync_file, fsync_folder, replace = files.fsync_file, files.fsync_folder, files.replace
    monkeypatch.setattr(files, "fsync_file", lambda fd: (order.append("fsync file"), fsync_file(fd)))
    monkeypatch.setattr(files, "fsync_folder", lambda path: (order.append("fsync folder"), fsync_folder(path)))
    monkeypatch.setattr(files, "replace", lambda a, b: (order.append("rename"), replace(a, b)))
    monkeypatch.setattr(Journal, "commit", recorded)
    assert desk.submit(header).verdict == pb.ACCEPTED
    assert order == ["fsync file", "rename", "fsync folder", "commit"]
    assert desk.told == [Key("run", 0, "a", pb.WORK)]


def test_a_reply_sent_again_gets_its_first_receipt_again_and_no_byte_is_asked_for(desk: Desk) -> None:
    header = desk.header("a")
    first = desk.submit(header)
    again = desk.intake.open(header)
    assert isinstance(again, pb.Receipt)
    assert again == first
    assert desk.told == [Key("run", 0, "a", pb.WORK)]


def test_another_reply_for_the_same_task_is_refused_and_the_first_stays(desk: Desk) -> None:
    first = desk.header("a", 1.0)
    desk.submit(first)
    receipt = desk.submit(desk.header("a", 2.0))
    assert receipt.verdict == pb.REFUSED
    assert "run run step 0 agent a (work): another reply of this step was accepted before" in receipt.reason
    assert desk.journal.reply_digest(Key("run", 0, "a", pb.WORK)) == records.digest(first.record)


def test_an_upload_that_broke_goes_on_where_it_was(desk: Desk) -> None:
    header = desk.header("a")
    upload = opened(desk, header)
    for part in desk.parts(header)[:-2]:
        upload.feed(part)
    upload.abandon()
    again = opened(desk, header)
    assert 0 < again.offsets[0] < header.record.payloads[0].size
    for part in desk.parts(header, again.offsets[0]):
        again.feed(part)
    assert again.close().verdict == pb.ACCEPTED


def test_an_upload_that_broke_goes_on_where_it_was_after_a_sweep_too(desk: Desk) -> None:
    header = desk.header("a")
    upload = opened(desk, header)
    feed(upload, desk.parts(header)[:-2])
    upload.abandon()
    retention.sweep(desk.journal, desk.blobs)
    again = opened(desk, header)
    assert again.offsets[0] > 0
    feed(again, desk.parts(header, again.offsets[0]))
    assert again.close().verdict == pb.ACCEPTED


def test_what_came_of_an_upload_goes_when_its_step_is_closed(desk: Desk) -> None:
    header = desk.header("a")
    upload = opened(desk, header)
    feed(upload, desk.parts(header)[:-2])
    upload.abandon()
    partials = desk.blobs._partial
    other = opened(desk, desk.header("b"))
    assert len(list(partials.iterdir())) == 2  # of a step that is open: it may go on
    desk.shop.runs.stop("run")
    other.abandon()
    assert list(partials.iterdir()) == []


def test_equal_replies_of_two_agents_at_once_do_not_touch_each_other(desk: Desk) -> None:
    one, other = desk.header("a"), desk.header("b")
    assert one.record == other.record
    uploads = [opened(desk, one), opened(desk, other)]
    for part in desk.parts(one):
        for upload in uploads:
            upload.feed(part)
    assert [upload.close().verdict for upload in uploads] == [pb.ACCEPTED, pb.ACCEPTED]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda h: h.key.__setattr__("run", "nowhere"), "this server has no such run"),
        (lambda h: h.key.__setattr__("agent", "z"), "this agent was not asked for that"),
        (lambda h: h.key.__setattr__("step", 7), "this agent was not asked for that"),
        (lambda h: h.key.__setattr__("kind", pb.PREPARE), "this agent was not asked for that"),
        (lambda h: h.record.__setattr__("schema", b"other"), "schema of Reply"),
        (lambda h: h.record.ClearField("payloads"), "run run step 0 agent a"),
        (
            lambda h: h.report.spans.add(name="expert root", seconds=float("inf")),
            "spans.seconds must be finite, got inf",
        ),
        (lambda h: h.report.__setattr__("rss_peak_delta_bytes", 2**64 - 1), "rss_peak_delta_bytes must be at most"),
    ],
)
def test_what_was_not_asked_for_or_does_not_fit_is_refused(desk: Desk, change, text: str) -> None:  # type: ignore[no-untyped-def]
    header = desk.header("a")
    change(header)
    receipt = desk.intake.open(header)
    assert isinstance(receipt, pb.Receipt)
    assert receipt.verdict == pb.REFUSED
    assert text in receipt.reason


def test_nan_is_refused_unless_the_run_allows_it(desk: Desk, tmp_path: Path) -> None:
    header = desk.header("a", float("nan"))
    upload = opened(desk, header)
    with pytest.raises(RemoteFault, match=r"run run step 0 agent a.*classifier\.weight"):
        feed(upload, desk.parts(header))
    assert upload.close().verdict == pb.REFUSED
    allowing = Desk(tmp_path / "other", RUN + '[wire]\nnon_finite = "allow"\n')
    try:
        assert allowing.submit(allowing.header("a", float("nan"))).verdict == pb.ACCEPTED
    finally:
        allowing.shop.close()


def test_a_payload_that_is_here_already_is_held_against_this_runs_rules_too(desk: Desk) -> None:
    """It may have come under another run's, which allowed NaN: nothing of it is sent again, all of it is looked at."""
    header = desk.header("a", float("nan"))
    (ref,) = header.record.payloads
    with desk.blobs.receive(ref, limits=Limits(allow_non_finite=True)) as receiver:
        for part in desk.parts(header):
            receiver.feed(part)
        receiver.finish()
    retention.own(desk.journal, "reply other 0 a 0", [ref.sha256])
    receipt = desk.submit(header)
    assert receipt.verdict == pb.REFUSED
    assert receipt.reason.startswith(
        "run run step 0 agent a (work): array 'classifier.weight': expected finite numbers"
    )
    assert desk.blobs.has(ref.sha256), "it is the other run's"


def test_a_submit_that_ends_early_is_refused(desk: Desk) -> None:
    header = desk.header("a")
    upload = opened(desk, header)
    upload.feed(desk.parts(header)[0])
    receipt = upload.close()
    assert (receipt.verdict, receipt.reason.endswith("payloads that are not complete: 1")) == (pb.REFUSED, True)
    assert desk.told == []


def test_a_full_disk_is_no_refusal_and_the_reply_can_be_sent_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    header = desk.header("a")

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "fsync_file", full)
        upload = opened(desk, header)
        with pytest.raises(LocalFault, match="No space left on device"):
            feed(upload, desk.parts(header))
        upload.abandon()
    assert desk.submit(header).verdict == pb.ACCEPTED


def test_what_comes_while_its_step_closes_is_late_and_nothing_is_kept(desk: Desk) -> None:
    header = desk.header("a")
    upload = opened(desk, header)
    for part in desk.parts(header):
        upload.feed(part)
    desk.shop.runs.stop("run")
    receipt = upload.close()
    assert receipt.verdict == pb.LATE
    assert desk.journal.reply_digest(Key("run", 0, "a", pb.WORK)) is None
    assert isinstance(desk.intake.open(header), pb.Receipt)
