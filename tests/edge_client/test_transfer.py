"""Transfers go on where they broke off, and say what they cost."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from fake_device import Device, work
from scripted_federation import Federation, status

from common import files, pb
from common.blobs import Blobs
from edge_client import transfer
from edge_client.job import Finished

PART = 4096


def test_fetch_goes_on_where_it_broke_off(device: Device, server: Federation) -> None:
    ref = server.payload(os.urandom(40 * PART))
    server.run()
    server.cut_fetch_after = [99, 20, 15]  # the first is the run
    with device.running() as executor:
        server.offer(work(server, 0, task=pb.Record(payloads=[ref])))
        server.reply()
    run, first, second, third = server.offsets
    assert (run, first) == (0, 0)
    assert 15 * PART < second < 20 * PART
    assert second + 10 * PART < third
    assert executor.blobs.open(ref).data is not None


def test_fetch_goes_on_after_a_restart_of_the_agent(device: Device, server: Federation) -> None:
    ref = server.payload(os.urandom(40 * PART))
    device_blobs = Blobs(device.path / "blobs")
    receiver = device_blobs.receive(ref)
    for part, _ in zip(server.blobs.parts(ref.sha256, 0, PART), range(10), strict=False):
        receiver.feed(part)
    receiver.abandon()
    with device.running():
        server.offer(work(server, 0, task=pb.Record(payloads=[ref])))
        server.reply()
    assert server.offsets[1] > 8 * PART


def test_submit_goes_on_from_the_bytes_that_the_server_has(device: Device, server: Federation) -> None:
    server.cut_submit_after = [200]
    executor = device.executor()
    executor.reply_bytes = 400 * PART
    with device.running(executor):
        server.offer(work(server, 0))
        header = server.reply()
        transfer = server.expect("transfer").transfer
    (ref,) = header.record.payloads
    assert server.calls["submit"] == 2
    assert transfer.bytes_up < 1.5 * ref.size  # what gRPC had taken when the stream broke counts as sent


def test_bytes_are_messages_and_five_each(device: Device, server: Federation) -> None:
    """Against the parts themselves: all but the answers to the submit."""
    with device.running():
        offer = server.offer(work(server, 0))
        header = server.reply()
        transfer = server.expect("transfer").transfer
    down = [offer.run, *offer.task.payloads]
    parts = [part for ref in down for part in server.blobs.parts(ref.sha256, 0, PART)]
    requests = [pb.FetchRequest(agent="h", sha256=ref.sha256).ByteSize() + 5 for ref in down]
    resume, receipt = (
        pb.SubmitEvent(resume=pb.Resume(offsets=[0])),
        pb.SubmitEvent(receipt=pb.Receipt(key=offer.key)),
    )
    events = [pb.ServerEvent(offer=offer), resume, receipt]
    assert transfer.bytes_down == sum(len(part) + 5 for part in parts) + sum(e.ByteSize() + 5 for e in events)
    sent = [pb.Part(header=header).SerializeToString()]
    sent += [part for ref in header.record.payloads for part in server.blobs.parts(ref.sha256, 0, PART)]
    assert transfer.bytes_up == sum(len(part) + 5 for part in sent) + sum(requests)


def test_payload_that_is_not_what_was_offered_is_never_used(device: Device, server: Federation) -> None:
    ref = server.payload(b"right" * 5000)
    server.blobs.path(ref.sha256).write_bytes(server.blobs.path(server.payload(b"wrong" * 5000).sha256).read_bytes())
    with device.running() as executor:
        server.offer(work(server, 0, task=pb.Record(payloads=[ref])))
        declined = server.expect("declined").declined
        server.offer(work(server, 1))
        server.reply()
    assert declined.why == pb.FAILED
    assert [job.offer.key.step for job in executor.jobs] == [1]
    assert not executor.blobs.has(ref.sha256)


def test_receipt_for_another_reply_is_no_receipt(device: Device, server: Federation) -> None:
    answer = pb.SubmitEvent(receipt=pb.Receipt(key=pb.TaskKey(run="other")))
    server.submit_answers.append([answer])
    with device.running() as executor:
        server.offer(work(server, 0))
        server.reply()
    assert server.calls["submit"] == 2
    assert len(executor.jobs) == 1


def test_impossible_offsets_are_refused(device: Device, server: Federation) -> None:
    server.submit_answers.append([pb.SubmitEvent(resume=pb.Resume(offsets=[1 << 40]))])
    server.submit_answers.append([pb.SubmitEvent(resume=pb.Resume())])
    with device.running() as executor:
        server.offer(work(server, 0))
        server.reply()
    assert server.calls["submit"] == 3
    assert len(executor.jobs) == 1


@pytest.mark.parametrize("method", ["fetch", "submit"])
def test_transfer_that_stands_still_is_begun_again(
    device: Device, server: Federation, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(transfer, "STALL_S", 0.3)
    monkeypatch.setattr(transfer, "QUEUE_S", 0.3)
    ended = threading.Event()

    def stand_still(context: grpc.ServicerContext) -> None:
        context.add_callback(ended.set)
        assert ended.wait(60)

    server.faults[method].append(stand_still)
    with device.running() as executor:
        server.offer(work(server, 0))
        server.reply()
    assert ended.is_set()
    assert len(executor.jobs) == 1


def test_slow_transfer_that_moves_is_left_alone(
    device: Device, server: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes several times the deadline in all, and never as long without a part."""
    monkeypatch.setattr(transfer, "STALL_S", 1.5)
    server.pause_s = 0.04
    with device.running():
        server.offer(work(server, 0, task=pb.Record(payloads=[server.payload(os.urandom(100 * PART))])))
        server.reply()
    assert server.calls["fetch"] == 2  # the run and the model, once each


def test_withdrawn_fetch_ends_at_its_next_part(device: Device, server: Federation) -> None:
    ref = server.payload(os.urandom(1000 * PART))
    server.pause_s = 0.02
    with device.running() as executor:
        offer = server.offer(work(server, 0, task=pb.Record(payloads=[ref])))
        _until(lambda: server.fetched[ref.sha256])
        _withdraw(server, offer)
        server.offer(work(server, 1))
        assert server.reply().key.step == 1
    assert len(executor.jobs) == 1
    assert not executor.blobs.has(ref.sha256)


def test_withdrawn_submit_ends_at_its_next_part(device: Device, server: Federation) -> None:
    executor = device.executor()
    executor.reply_bytes = 4000 * PART
    server.pause_s = 0.02
    with device.running(executor):
        offer = server.offer(work(server, 0))
        _until(lambda: server.calls["submit"])
        executor.reply_bytes = PART
        _withdraw(server, offer)
        server.offer(work(server, 1))
        assert server.reply().key.step == 1
    assert server.calls["submit"] == 2


def _until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _withdraw(server: Federation, offer: pb.Offer) -> None:
    server.close(offer)
    server.push(pb.ServerEvent(withdrawn=pb.Withdrawn(key=offer.key, reason="closed")))


def test_memory_made_of_what_was_fetched_is_forced_to_the_disk_before_it_is_committed(
    device: Device, server: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that trains nothing keeps the very payload that came: fetching alone does not make it durable."""
    forced = []
    original = files.fsync_file

    def fsync_file(fd: int) -> None:
        forced.append(Path(f"/proc/self/fd/{fd}").resolve().name)
        original(fd)

    monkeypatch.setattr(transfer, "fsync_file", fsync_file)
    monkeypatch.setattr(files, "fsync_file", fsync_file)
    executor = device.executor()
    executor.do = lambda job, progress: Finished(job.offer.task, job.offer.task, pb.ResourceReport())
    with device.running(executor):
        offer = server.offer(work(server, 0))
        server.reply()
    digest = offer.task.payloads[0].sha256.hex()
    assert forced.count(digest) == 1
    assert forced.index(digest) < [name.startswith(".pending") for name in forced].index(True)
    assert offer.run.sha256.hex() not in forced


def test_payload_that_a_power_cut_has_spoilt_is_fetched_again(device: Device, server: Federation) -> None:
    with device.running() as executor:
        server.offer(work(server, 0, method="local"))
        server.reply()
    (ref,) = executor.jobs[0].offer.task.payloads
    path = executor.blobs.path(ref.sha256)
    path.write_bytes(bytes(ref.size))
    with device.running():
        server.offer(work(server, 0, kind=pb.EVALUATE, memory_step=0, merged_step=0, task=executor.jobs[0].offer.task))
        server.reply()
    assert server.fetched[ref.sha256] == 2
    assert server.fetched[executor.jobs[0].offer.run.sha256] == 1


@pytest.mark.parametrize("asked", ["0.01", "nonsense"])
def test_busy_server_is_asked_again_as_often_as_it_takes(device: Device, server: Federation, asked: str) -> None:
    busy = status(grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after_s=asked)
    server.faults["submit"] = [busy] * 20
    with device.running() as executor:
        server.offer(work(server, 0))
        server.reply()
    assert server.calls["submit"] == 21
    assert len(executor.jobs) == 1
