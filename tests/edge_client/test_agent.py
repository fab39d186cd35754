"""The agent against a scripted server: it works, and it is still there whatever it was answered."""

import errno
import os
import threading
import time
from pathlib import Path

import grpc
import pytest
from fake_device import Device, work
from scripted_federation import Federation, status

from common import pb
from common.blobs import Blobs
from common.task_key import Key
from edge_client import keep, task
from edge_client.job import Failed, PreparedData, Skipped
from edge_client.memory import Archive
from edge_client.offers import InHand

ERRORS = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]


def test_offer_becomes_a_reply_with_its_transfer_report(device: Device, server: Federation) -> None:
    with device.running() as executor:
        offer = server.offer(work(server, 0))
        assert server.expect("hello").hello.host == "h"
        assert server.expect("accepted").accepted.key == offer.key
        header = server.reply()
        assert header.key == offer.key
        (ref,) = header.record.payloads
        assert bytes(server.blobs.open(ref).data).startswith(b"r/0/h/")
        transfer = server.expect("transfer").transfer
    assert len(executor.jobs) == 1
    assert transfer.key == offer.key
    assert transfer.bytes_up > ref.size
    assert transfer.bytes_down > offer.task.payloads[0].size + offer.run.size


@pytest.mark.parametrize("method", ["join", "fetch", "submit"])
@pytest.mark.parametrize("code", ERRORS, ids=lambda code: code.name)
def test_agent_is_there_and_works_after_any_status(
    device: Device, server: Federation, method: str, code: grpc.StatusCode
) -> None:
    server.faults[method].append(status(code))
    with device.running() as executor:
        server.offer(work(server, 0))
        assert server.reply().key.step == 0
        server.offer(work(server, 1, memory_step=0, merged_step=0))
        assert server.reply().key.step == 1
    assert len(executor.jobs) == 2
    assert not server.faults[method]


@pytest.mark.parametrize("method", ["fetch", "submit"])
def test_task_that_cannot_be_transferred_is_declined_and_the_next_one_works(
    device: Device, server: Federation, method: str
) -> None:
    server.faults[method] = [status(grpc.StatusCode.PERMISSION_DENIED, "not yours")] * 8
    with device.running():
        offer = server.offer(work(server, 0))
        declined = server.expect("declined").declined
        assert declined.key == offer.key
        assert declined.why == pb.FAILED
        assert "not yours" in declined.reason
        server.offer(work(server, 1))
        assert server.reply().key.step == 1


def test_reply_whose_submit_was_given_up_is_submitted_when_offered_again(device: Device, server: Federation) -> None:
    server.faults["submit"] = [status(grpc.StatusCode.INTERNAL)] * 8
    with device.running() as executor:
        offer = server.offer(work(server, 0))
        server.expect("declined")
        server.offer(offer)
        assert server.reply().key == offer.key
    assert len(executor.jobs) == 1


def test_reply_committed_before_a_kill_is_submitted_and_never_trained_again(device: Device, server: Federation) -> None:
    """As after `kill -9` between commit and submit: the folder is all that is left."""
    offer = work(server, 0)
    done = device.executor().finished(_job(offer))
    Archive(device.path / "memory").of("scripted").commit(
        pb.Pending(reply=pb.RecordHeader(key=offer.key, record=done.reply), memory=done.memory)
    )
    with device.running() as executor:
        server.offer(offer)
        header = server.reply()
    assert executor.jobs == []
    assert header.record == done.reply


def test_reply_to_another_server_is_never_given_to_this_one(device: Device, server: Federation) -> None:
    """A server that lost its state may have a run of the same name; what was trained for the old one is another."""
    offer = work(server, 0)
    done = device.executor().finished(_job(offer))
    Archive(device.path / "memory").of("its predecessor").commit(
        pb.Pending(reply=pb.RecordHeader(key=offer.key, record=done.reply), memory=done.memory)
    )
    with device.running() as executor:
        server.offer(offer)
        server.reply()
    assert len(executor.jobs) == 1


def test_same_offer_twice_is_worked_on_once(device: Device, server: Federation) -> None:
    with device.running() as executor:
        offer = server.offer(work(server, 0))
        server.expect("accepted")
        server.offer(offer)
        server.reply()
        server.offer(work(server, 1, memory_step=0, merged_step=0))
        server.reply()
    assert [job.offer.key.step for job in executor.jobs] == [0, 1]


def test_memory_of_a_merged_step_outlives_an_offer_of_it_that_the_next_step_overtakes(
    device: Device, server: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    pending, again = task._pending_reply, threading.Event()

    def slowly(of: InHand, desk: task.Desk) -> pb.Pending | None:
        if again.is_set() and of.key.step == 0:
            assert of.withdrawn.wait(60)
        return pending(of, desk)

    monkeypatch.setattr(task, "_pending_reply", slowly)
    with device.running():
        offer = server.offer(work(server, 0))
        server.reply()
        server.expect("transfer")
        again.set()
        server.offer(offer)
        server.expect("accepted")
        server.offer(work(server, 1, memory_step=0, merged_step=0))
        assert server.reply().key.step == 1


def test_offers_come_again_after_the_stream_broke_and_run_once(device: Device, server: Federation) -> None:
    entered, go = threading.Event(), threading.Event()
    executor = device.executor()

    def slow(job, progress):
        entered.set()
        assert go.wait(60)
        return executor.finished(job)

    executor.do = slow
    with device.running(executor):
        server.offer(work(server, 0))
        assert entered.wait(60)
        server.expect("hello")
        server.drop_streams()
        server.expect("hello")
        server.expect("accepted")  # again, though it runs already: the server may not know
        go.set()
        server.reply()
    assert len(executor.jobs) == 1


def test_memory_of_a_merged_step_is_given_to_the_next_task(device: Device, server: Federation) -> None:
    with device.running() as executor:
        server.offer(work(server, 0))
        server.reply()
        server.offer(work(server, 1, memory_step=0, merged_step=0))
        server.reply()
    assert executor.jobs[0].memory is None
    (ref,) = executor.jobs[1].memory.payloads
    assert bytes(Blobs(device.path / "blobs").open(ref).data) == b"r/0/h/"


def test_memory_whose_payload_the_disk_has_lost_is_said_to_be_gone(device: Device, server: Federation) -> None:
    """Or every task of the run would fail on it."""
    with device.running() as executor:
        server.offer(work(server, 0))
        server.reply()
        (ref,) = executor.finished(executor.jobs[0]).memory.payloads
        offer = work(server, 1, memory_step=0, merged_step=0)
        Blobs(device.path / "blobs").remove(ref.sha256)
        server.offer(offer)
        declined = server.expect("declined").declined
        assert (declined.why, declined.memory_step) == (pb.OTHER_MEMORY, -1)
        server.offer(work(server, 1, memory_step=-1, merged_step=0))
        server.reply()
    assert executor.jobs[1].memory is None


def test_memory_of_a_step_that_was_not_merged_is_dropped(device: Device, server: Federation) -> None:
    with device.running() as executor:
        server.offer(work(server, 0))
        server.reply()
        server.offer(work(server, 1))  # quorum missed: merged_step is still -1
        server.reply()
    assert executor.jobs[1].memory is None


@pytest.mark.parametrize("verdict", [pb.LATE, pb.REFUSED])
@pytest.mark.parametrize(("method", "is_kept"), [("fedavg", False), ("local", True)])
def test_only_purely_local_methods_keep_the_memory_of_a_refused_reply(
    device: Device, server: Federation, verdict: int, method: str, is_kept: bool
) -> None:
    server.receipts.append(pb.Receipt(verdict=verdict, reason="step 0 is closed"))
    with device.running() as executor:
        server.offer(work(server, 0, method=method))
        server.expect("transfer")
        server.offer(work(server, 1, method=method))
        server.reply()
    assert (executor.jobs[1].memory is not None) == is_kept


def test_refused_reply_is_dropped_and_said_so_a_late_one_is_only_dropped(device: Device, server: Federation) -> None:
    """The engine hears of accepted replies only: it would wait for a refused one until the deadline."""
    server.receipts += [pb.Receipt(verdict=pb.LATE), pb.Receipt(verdict=pb.REFUSED, reason="array 'w' holds NaN")]
    with device.running() as executor:
        server.offer(work(server, 0))
        server.expect("transfer")
        refused = server.offer(work(server, 1))
        declined = server.expect("declined").declined
        assert (declined.key, declined.why) == (refused.key, pb.FAILED)
        assert declined.reason == "its reply was refused: array 'w' holds NaN"
        server.expect("transfer")
    assert len(executor.jobs) == server.calls["submit"] == 2
    assert Archive(device.path / "memory").of("scripted").pending("r", "h") is None


def test_agent_with_another_memory_says_which(device: Device, server: Federation) -> None:
    with device.running() as executor:
        offer = server.offer(work(server, 5, memory_step=4, merged_step=4))
        declined = server.expect("declined").declined
        assert (declined.key, declined.why, declined.memory_step) == (offer.key, pb.OTHER_MEMORY, -1)
    assert executor.jobs == []


def test_evaluation_leaves_no_memory(device: Device, server: Federation) -> None:
    with device.running() as executor:
        server.offer(work(server, 0))
        server.reply()
        server.offer(work(server, 0, kind=pb.EVALUATE, memory_step=0, merged_step=0, expects_reply=False))
        header = server.reply()
        assert header.key.kind == pb.EVALUATE
        assert header.evaluations[0].n == 3
        assert not header.HasField("record")
        server.offer(work(server, 1, memory_step=0, merged_step=0))
        server.reply()
    (ref,) = executor.jobs[2].memory.payloads
    assert bytes(Blobs(device.path / "blobs").open(ref).data) == b"r/0/h/"


@pytest.mark.parametrize(
    ("outcome", "why"),
    [
        (Skipped("no such class"), pb.SKIPPED),
        (Failed("it broke"), pb.FAILED),
        (Failed("no learner", cannot=True), pb.CANNOT),
    ],
)
def test_what_is_not_done_is_said(device: Device, server: Federation, outcome: object, why: int) -> None:
    executor = device.executor()
    executor.do = lambda job, progress: outcome
    with device.running(executor):
        server.offer(work(server, 0))
        declined = server.expect("declined").declined
    assert (declined.why, declined.reason) == (why, outcome.reason)


def test_long_task_tells_where_it_is_and_a_short_one_does_not(device: Device, server: Federation, monkeypatch) -> None:
    executor = device.executor()
    told = threading.Event()

    def silent_while_it_trains(job, progress):
        executor.do = None
        progress("train", 0.25)
        assert told.wait(60)
        return executor.finished(job)

    executor.do = silent_while_it_trains
    with device.running(executor):
        server.offer(work(server, 0))
        while (progress := server.expect("progress").progress).phase != "train":
            pass  # it may take long to get there
        told.set()
        server.reply()
        server.offer(work(server, 1, memory_step=0, merged_step=0))
        server.reply()
        server.expect("transfer")
        server.expect("transfer")
    assert (progress.key.step, progress.phase, progress.fraction) == (0, "train", 0.25)


def test_task_that_raises_is_declined_and_the_agent_goes_on(device: Device, server: Federation) -> None:
    executor = device.executor()

    def broken(job, progress):
        executor.do = None
        raise ZeroDivisionError("bug")

    executor.do = broken
    with device.running(executor):
        server.offer(work(server, 0))
        assert "ZeroDivisionError" in server.expect("declined").declined.reason
        server.offer(work(server, 1))
        server.reply()


def test_prepare_is_answered_with_facts_and_classes(device: Device, server: Federation) -> None:
    executor = device.executor()
    executor.do = lambda job, progress: PreparedData(pb.DataFacts(name="d", n_classes=2), ("a", "b"))
    with device.running(executor):
        server.offer(work(server, 0, kind=pb.PREPARE, task=pb.Record()))
        prepared = server.expect("prepared").prepared
    assert prepared.data.n_classes == 2
    assert list(prepared.classes) == ["a", "b"]
    assert server.calls["submit"] == 0


def test_offer_to_an_agent_of_another_host_is_declined(device: Device, server: Federation) -> None:
    with device.running():
        server.offer(work(server, 0, agent="stranger"))
        declined = server.expect("declined").declined
    assert declined.why == pb.CANNOT


def test_agents_of_one_process_work_one_after_another_in_order(device: Device, server: Federation) -> None:
    device.names = ("h/00", "h/01", "h/02")
    at_once = []
    executor = device.executor()
    running = threading.Lock()

    def alone(job, progress):
        at_once.append(not running.acquire(blocking=False))
        try:
            return executor.finished(job)
        finally:
            running.release()

    executor.do = alone
    offers = [work(server, 0, agent=name) for name in device.names]
    for offer in offers:
        server.offer(offer)
    with device.running(executor):
        for _ in offers:
            server.reply()
    assert [job.offer.key.agent for job in executor.jobs] == list(device.names)
    assert at_once == [False] * 3


def test_workers_run_that_many_tasks_at_once(device: Device, server: Federation) -> None:
    device.names, device.n_tasks = ("h/00", "h/01"), 2
    executor = device.executor()
    together = threading.Barrier(2, timeout=60)

    def both(job, progress):
        together.wait()
        return executor.finished(job)

    executor.do = both
    with device.running(executor):
        for name in device.names:
            server.offer(work(server, 0, agent=name))
        server.reply()
        server.reply()


def test_withdrawn_task_is_cancelled_and_says_nothing_more(device: Device, server: Federation) -> None:
    entered, cancelled = threading.Event(), threading.Event()
    executor = device.executor()

    def until_cancelled(job, progress):
        executor.do = None
        entered.set()
        assert cancelled.wait(60)
        return Failed("cancelled")

    executor.do = until_cancelled
    executor.cancel = lambda key: cancelled.set()
    with device.running(executor):
        offer = server.offer(work(server, 0))
        assert entered.wait(60)
        server.push(pb.ServerEvent(withdrawn=pb.Withdrawn(key=offer.key, reason="closed")))
        server.offer(work(server, 1))
        assert server.reply().key.step == 1
        kinds = []
        while not server.heard.empty():
            kinds.append(server.heard.get().WhichOneof("kind"))
    assert "declined" not in kinds


def test_task_that_is_withdrawn_as_it_begins_is_cancelled_when_it_tells_of_itself(
    device: Device, server: Federation
) -> None:
    """The executor may not know of it yet when the withdrawal comes."""
    executor, over = device.executor(), threading.Event()

    def withdrawn_at_once(job, progress):
        executor.do = None
        server.close(job.offer)
        server.push(pb.ServerEvent(withdrawn=pb.Withdrawn(key=job.offer.key, reason="the step is closed")))
        while not any(task.withdrawn.is_set() for task in device.agent._offers._running):
            time.sleep(0.001)
        executor.cancelled.clear()  # as if it had come too early
        progress("train", 0.0)
        over.set()
        return Failed("the task was ended before it was done")

    executor.do = withdrawn_at_once
    with device.running(executor):
        server.offer(work(server, 0))
        assert over.wait(60)
        assert executor.cancelled == [Key("r", 0, "h", pb.WORK)]
        server.offer(work(server, 1))
        assert server.reply().key.step == 1


def test_task_of_a_step_that_closed_while_the_agent_was_away_is_cancelled(device: Device, server: Federation) -> None:
    """It hears of the next step only: nobody withdraws anything from a host that is not there."""
    entered, cancelled = threading.Event(), threading.Event()
    executor = device.executor()

    def until_cancelled(job, progress):
        executor.do = None
        entered.set()
        assert cancelled.wait(60)
        return Failed("cancelled")

    executor.do = until_cancelled
    executor.cancel = lambda key: cancelled.set()
    with device.running(executor):
        offer = server.offer(work(server, 0))
        assert entered.wait(60)
        server.close(offer)
        server.drop_streams()
        server.offer(work(server, 1))
        assert server.reply().key.step == 1
    assert [job.offer.key.step for job in executor.jobs] == [0, 1]


def test_stop_in_the_middle_of_a_task_is_told_and_keeps_the_state(device: Device, server: Federation) -> None:
    entered, go = threading.Event(), threading.Event()
    executor = device.executor()

    def slow(job, progress):
        entered.set()
        assert go.wait(60)
        return Failed("ended")

    executor.do = slow
    with device.running(executor):
        server.offer(work(server, 0))
        waiting = server.offer(work(server, 0, run="other"))
        assert entered.wait(60)
        while server.expect("accepted").accepted.key != waiting.key:
            pass
        executor.close = go.set
    declined = [server.expect("declined").declined for _ in range(2)]
    assert {d.why for d in declined} == {pb.ENDING}
    assert server.expect("leaving").leaving.reason == "the test ends"
    with device.running() as again:
        server.offer(work(server, 0))
        server.reply()
    assert len(again.jobs) == 1


def test_instance_is_the_same_after_a_restart(device: Device, server: Federation) -> None:
    with device.running():
        first = server.expect("hello").hello.instance
    with device.running():
        assert server.expect("hello").hello.instance == first != ""


def test_server_that_sends_the_agent_away_gets_it_back(device: Device, server: Federation) -> None:
    with device.running():
        server.expect("hello")
        server.push(pb.ServerEvent(come_back=pb.ComeBack(after_s=0.01, reason="draining")))
        server.expect("hello")
        server.offer(work(server, 0))
        server.reply()


def test_agent_whose_name_is_taken_keeps_asking(device: Device, server: Federation, caplog) -> None:
    with device.running():
        server.expect("hello")
        server.push(pb.ServerEvent(refused=pb.Refused(reason="host h is already connected from elsewhere")))
        server.expect("hello")
    assert "host h is already connected from elsewhere" in caplog.text


def test_garbage_and_unknown_events_do_no_harm(device: Device, server: Federation) -> None:
    with device.running():
        server.expect("hello")
        server.push(pb.ServerEvent())  # of a kind that this version does not know
        server.push(pb.ServerEvent(offer=pb.Offer()))
        assert server.expect("declined").declined.why == pb.CANNOT
        server.offer(work(server, 0))
        server.reply()


def test_server_that_restarts_on_its_port_finds_the_agent_again(tmp_path, device: Device, server: Federation) -> None:
    with device.running() as executor:
        server.offer(work(server, 0))
        server.reply()
        server.expect("transfer")  # it has the receipt
        server.stop()
        second = Federation(tmp_path / "second", port=server.port)
        try:
            second.expect("hello")
            second.offer(work(second, 1, memory_step=0, merged_step=0))
            assert second.reply().key.step == 1
        finally:
            second.stop()
    assert len(executor.jobs) == 2


def test_payloads_that_nobody_names_any_more_go_away(device: Device, server: Federation, monkeypatch) -> None:
    monkeypatch.setattr(keep, "SWEEP_EVERY_S", 0.0)
    with device.running() as executor:
        server.offer(work(server, 0))
        server.reply()
        for step in (1, 2, 3):
            server.offer(work(server, step, memory_step=step - 1, merged_step=step - 1))
            server.reply()
    blobs, deadline = Blobs(device.path / "blobs"), time.monotonic() + 60
    while len(blobs.digests()) > 5:  # run, model, held memory, pending memory and reply
        assert time.monotonic() < deadline  # the last sweep comes after the reply
        time.sleep(0.01)
    last = executor.jobs[-1].offer
    assert {ref.sha256 for ref in last.task.payloads} <= blobs.digests()  # an evaluation may want it next
    assert len(blobs.digests()) == 5


def test_payloads_that_cannot_be_removed_stop_nothing(device: Device, server: Federation, monkeypatch, caplog) -> None:
    """As on a card that the system has made read-only because it fails."""

    def read_only(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(keep, "OVERDUE", 1)  # each task waits for the sweep after the one before
    monkeypatch.setattr(keep, "RECENT", 0)
    monkeypatch.setattr(Blobs, "remove", read_only)
    with device.running() as executor:
        for step in range(3):
            server.offer(work(server, step, memory_step=step - 1, merged_step=step - 1))
            server.reply()
    assert len(executor.jobs) == 3
    assert 'sweep_failed reason="[Errno 30] Read-only file system"' in caplog.text


@pytest.mark.parametrize("in_memory", [False, True])
def test_sector_that_cannot_be_read_keeps_no_agent_from_starting(
    device: Device, server: Federation, monkeypatch, in_memory: bool
) -> None:
    """What it held is fetched again, or the server hears that this memory is gone."""
    with device.running() as executor:
        offer = server.offer(work(server, 0))
        server.reply()
        server.expect("transfer")
    lost = device.path / "blobs" / offer.task.payloads[0].sha256.hex()
    if in_memory:
        (lost,) = device.path.glob("memory/*/*/*/pending")
    number, as_it_is = lost.stat().st_ino, Path.open
    os.link(lost, device.path.parent / "lost")  # so that no other file gets its number

    def bad(path: Path, *arguments: object, **options: object) -> object:
        if path.exists() and path.stat().st_ino == number:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return as_it_is(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", bad)
    with device.running() as executor:
        server.offer(work(server, 1))
        server.reply()
    assert len(executor.jobs) == 1


def test_model_that_stays_is_fetched_once(device: Device, server: Federation) -> None:
    device.names = ("h/00", "h/01")
    task = pb.Record(payloads=[server.payload(b"the global model" * 1000)])
    with device.running():
        for name in device.names:
            server.offer(work(server, 0, agent=name, task=task))
            server.reply()
        for name in device.names:
            server.offer(work(server, 0, agent=name, task=task, kind=pb.EVALUATE, memory_step=0, merged_step=0))
            server.reply()
    assert set(server.fetched.values()) == {1}


def _job(offer: pb.Offer):
    from edge_client.job import AgentConfig, Job

    return Job(offer, AgentConfig(offer.key.agent))
