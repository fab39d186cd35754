"""The folder of payloads: what is written once, shared, taken in across cut connections and crashes, and let go."""

import gc
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import psutil
import pytest

from common import files, pb
from common.blobs import Blobs, Receiver
from common.errors import LinkLost, LocalFault, RemoteFault
from common.payloads import Blob, Weights
from common.wire.canonical import Expert
from common.wire.limits import Limits
from tests.wire.examples import EXPERT, PAYLOADS, WEIGHTS, arrays_of, assert_same, canonical_bytes, ref_of

LARGE = Weights({"w": np.arange(100_000, dtype="f4"), "b": np.ones(10, "f4")})


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "blobs")


@pytest.fixture
def source(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "source")


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are written."""
    names: list[str] = []
    write = files.write_durably
    monkeypatch.setattr(files, "write_durably", lambda path, chunks: (names.append(path.name), write(path, chunks))[1])
    return names


def held(blobs: Blobs, ref: pb.PayloadRef) -> int:
    with blobs.receive(ref) as receiver:
        return receiver.offset


def feed(receiver: Receiver, parts: Iterable[bytes]) -> None:
    for part in parts:
        receiver.feed(part)


def unfinished(blobs: Blobs) -> list[str]:
    folder = blobs.path(bytes(32)).parent
    return [p.name for p in (*(folder / "partial").iterdir(), *folder.glob(".*"))]


@pytest.mark.parametrize("kind", PAYLOADS)
def test_what_is_put_can_be_opened(kind: str, blobs: Blobs) -> None:
    ref = blobs.put(PAYLOADS[kind])
    assert ref == ref_of(canonical_bytes(PAYLOADS[kind]))
    assert blobs.has(ref.sha256)
    assert blobs.digests() == {ref.sha256}
    assert_same(blobs.open(ref), PAYLOADS[kind])


def test_arrays_of_a_large_file_are_views_of_a_map(blobs: Blobs) -> None:
    got = blobs.open(blobs.put(LARGE))
    assert not any(array.flags.owndata or array.flags.writeable for array in arrays_of(got))


def test_an_open_payload_outlives_its_file(blobs: Blobs) -> None:
    ref = blobs.put(LARGE)
    got = blobs.open(ref)
    blobs.remove(ref.sha256)
    assert not blobs.has(ref.sha256)
    assert_same(got, LARGE)


def test_the_same_object_is_encoded_once(blobs: Blobs, written: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    first = [blobs.put(LARGE, "float16"), blobs.put(LARGE), blobs.put(Expert("n", LARGE))]
    monkeypatch.setattr("common.wire.canonical.encode", None)
    assert [blobs.put(LARGE, "float16"), blobs.put(LARGE), blobs.put(Expert("n", LARGE))] == first
    assert len(written) == len({ref.sha256 for ref in first}) == 3


def test_equal_content_is_written_once(blobs: Blobs, written: list[str]) -> None:
    assert blobs.put(Weights({"w": np.ones(3)})) == blobs.put(Weights({"w": np.ones(3)}))
    assert len(written) == 1


def test_an_object_at_the_address_of_a_dead_one_is_not_taken_for_it(blobs: Blobs) -> None:
    for n in range(200):
        got = blobs.open(blobs.put(Weights({"w": np.full(3, n)})))
        assert got["w"][0] == n
        gc.collect(0)
    assert len(blobs._known) <= 1


def test_keeping_what_was_opened_writes_nothing(blobs: Blobs, written: list[str]) -> None:
    ref = blobs.put(WEIGHTS, "float16")
    got = blobs.open(ref)
    assert len(written) == 1
    assert [blobs.put(got, encoding) for encoding in ("exact", "float32", "float16")] == [ref] * 3
    assert len(written) == 1
    assert blobs.put(got, "bfloat16") != ref


def test_keeping_what_was_opened_elsewhere_writes_it_here(blobs: Blobs, source: Blobs) -> None:
    got = source.open(source.put(WEIGHTS))
    assert blobs.put(got) == source.put(WEIGHTS)
    assert_same(blobs.open(blobs.put(got)), WEIGHTS)


def test_an_expert_is_not_its_weights(blobs: Blobs, written: list[str]) -> None:
    ref = blobs.put(EXPERT)
    weights = blobs.open(ref).weights
    assert blobs.put(Expert("animals", weights)) == ref
    assert len(written) == 1
    assert isinstance(blobs.open(blobs.put(weights)), Weights)
    assert blobs.open(blobs.put(Expert("cars", weights))).node == "cars"


def test_a_payload_that_is_not_here_is_named(blobs: Blobs) -> None:
    with pytest.raises(LocalFault, match=rf"^payload {'07' * 32} is not in .*blobs: was it removed\?$"):
        blobs.open(pb.PayloadRef(sha256=bytes([7] * 32), size=64))


def test_a_payload_that_cannot_be_read_is_a_fault_of_the_disk(blobs: Blobs) -> None:
    sha256 = bytes([7] * 32)
    blobs.path(sha256).mkdir()  # any error of the system but that it is not there
    with pytest.raises(LocalFault, match=r"^cannot read .*/0707.*: Is a directory$"):
        blobs.open(pb.PayloadRef(sha256=sha256, size=64))


def test_a_file_of_another_size_is_damage(blobs: Blobs) -> None:
    ref = blobs.put(LARGE)
    os.truncate(blobs.path(ref.sha256), 1000)
    with pytest.raises(LocalFault, match=rf"is damaged: expected {ref.size} bytes, got 1000$"):
        blobs.open(ref)


def test_a_full_disk_is_told_and_leaves_nothing(blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "fsync_file", full)
    with pytest.raises(LocalFault, match="No space left on device; free some space there"):
        blobs.put(WEIGHTS)
    assert blobs.digests() == set()
    assert unfinished(blobs) == []


@pytest.mark.parametrize("part_bytes", [128, 4096, 1 << 19])
def test_a_payload_goes_from_folder_to_folder(blobs: Blobs, source: Blobs, part_bytes: int) -> None:
    ref = source.put(LARGE, "bfloat16")
    with blobs.receive(ref) as receiver:
        for part in source.parts(ref.sha256, receiver.offset, part_bytes):
            receiver.feed(part)
        assert not blobs.has(ref.sha256)
        receiver.finish()
    assert blobs.path(ref.sha256).read_bytes() == source.path(ref.sha256).read_bytes()
    assert unfinished(blobs) == []


def test_the_bytes_are_durable_before_the_name_and_the_name_before_finish_returns(
    blobs: Blobs, source: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    for name in ("fsync_file", "replace", "fsync_folder"):
        call = getattr(files, name)
        monkeypatch.setattr(files, name, lambda *a, n=name, c=call: (made.append(n), c(*a))[1])
    ref = source.put(WEIGHTS)
    made.clear()
    receiver = blobs.receive(ref)
    for part in source.parts(ref.sha256):
        receiver.feed(part)
    assert made == []
    receiver.finish()
    assert made == ["fsync_file", "replace", "fsync_folder"]


def test_what_is_here_need_not_be_sent(blobs: Blobs) -> None:
    ref = blobs.put(WEIGHTS)
    receiver = blobs.receive(ref)
    assert receiver.offset == ref.size
    receiver.finish()
    assert_same(blobs.open(ref), WEIGHTS)


def test_a_cut_transfer_goes_on_where_it_ended(blobs: Blobs, source: Blobs) -> None:
    ref = source.put(LARGE)
    sent = 0
    while not blobs.has(ref.sha256):
        with blobs.receive(ref) as receiver:
            parts = source.parts(ref.sha256, receiver.offset, 65536)
            for part in [part for _, part in zip(range(2), parts, strict=False)]:
                receiver.feed(part)
                sent += len(part)
            if next(parts, None) is None:
                receiver.finish()
    assert sent < ref.size + 7 * 100
    assert_same(blobs.open(ref), LARGE)


def test_a_file_that_a_crash_left_is_gone_on_with_from_any_length(blobs: Blobs, source: Blobs) -> None:
    """Complete but without its name, too: then the last 64 bytes come again, and with them the end."""
    payload = Weights({"a": np.arange(40, dtype="f4"), "e": np.zeros(0), "b": np.arange(3, dtype="i1")})
    ref = source.put(payload)
    data = source.path(ref.sha256).read_bytes()
    blobs.receive(ref).abandon()
    (name,) = unfinished(blobs)
    partial = blobs.path(bytes(32)).parent / "partial" / name
    for length in range(len(data) + 2):
        partial.write_bytes((data + b"x")[:length])
        receiver = blobs.receive(ref)
        assert receiver.offset <= min(length, len(data) - 64)
        for part in source.parts(ref.sha256, receiver.offset, 192):
            receiver.feed(part)
        receiver.finish()
        assert blobs.path(ref.sha256).read_bytes() == data
        blobs.remove(ref.sha256)


def test_a_process_killed_while_it_receives_leaves_what_can_be_gone_on_with(tmp_path: Path, source: Blobs) -> None:
    ref = source.put(LARGE)
    script = f"""
import os, pathlib, signal
from common import pb
from common.blobs import Blobs, Receiver
ref = pb.PayloadRef(sha256=bytes.fromhex("{ref.sha256.hex()}"), size={ref.size})
receiver = Blobs(pathlib.Path({str(tmp_path / "blobs")!r})).receive(ref)
for i, part in enumerate(Blobs(pathlib.Path({str(tmp_path / "source")!r})).parts(ref.sha256, 0, 65536)):
    if i == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    receiver.feed(part)
"""
    done = subprocess.run([sys.executable, "-c", script], timeout=60, check=False)
    assert done.returncode == -9
    blobs = Blobs(tmp_path / "blobs")
    receiver = blobs.receive(ref)
    assert receiver.offset > 65536
    for part in source.parts(ref.sha256, receiver.offset):
        receiver.feed(part)
    receiver.finish()
    assert_same(blobs.open(ref), LARGE)


def test_a_part_that_breaks_the_contract_ends_the_transfer_and_leaves_nothing(blobs: Blobs, source: Blobs) -> None:
    ref = source.put(LARGE)
    receiver = blobs.receive(ref, where="run demo, round 3, agent pi")
    first, *_ = source.parts(ref.sha256)
    receiver.feed(first)
    with pytest.raises(RemoteFault, match=r"^run demo, round 3, agent pi: payload: expected its structure once"):
        receiver.feed(first)
    assert unfinished(blobs) == []
    with pytest.raises(LinkLost, match="this transfer has ended"):
        receiver.feed(first)


def test_a_part_damaged_on_its_way_costs_only_itself(blobs: Blobs, source: Blobs) -> None:
    ref = source.put(LARGE)
    stream = list(source.parts(ref.sha256, 0, 65536))
    receiver = blobs.receive(ref)
    for part in stream[:3]:
        receiver.feed(part)
    offset = receiver.offset
    damaged = bytearray(stream[3])
    damaged[1000] ^= 1
    with pytest.raises(LinkLost, match="expected its checksum, got another"):
        receiver.feed(bytes(damaged))
    receiver.abandon()
    assert held(blobs, ref) == offset


def test_other_bytes_than_promised_are_deleted(blobs: Blobs, source: Blobs) -> None:
    true = source.put(LARGE)
    ref = pb.PayloadRef(sha256=bytes(32), size=true.size)
    stream = list(source.parts(true.sha256))[:-1]
    receiver = blobs.receive(ref)
    for part in stream:
        receiver.feed(part)
    receiver.feed(pb.Part(end=pb.RecordEnd(sha256=bytes(32))).SerializeToString())
    with pytest.raises(RemoteFault, match="digest of a payload: expected 0000"):
        receiver.finish()
    assert unfinished(blobs) == []
    assert not blobs.has(ref.sha256)


def test_a_transfer_that_ends_early_keeps_what_came(blobs: Blobs, source: Blobs) -> None:
    ref = source.put(LARGE)
    receiver = blobs.receive(ref)
    for part in list(source.parts(ref.sha256, 0, 65536))[:3]:
        receiver.feed(part)
    with pytest.raises(RemoteFault, match=rf"payload: expected {ref.size} bytes and their end, got"):
        receiver.finish()
    receiver.abandon()
    assert held(blobs, ref) > 65536


def test_damage_on_our_disk_starts_the_transfer_again(blobs: Blobs, source: Blobs) -> None:
    ref = source.put(LARGE)
    receiver = blobs.receive(ref)
    for part in list(source.parts(ref.sha256, 0, 65536))[:3]:
        receiver.feed(part)
    receiver.abandon()
    partial = blobs.path(bytes(32)).parent / "partial" / unfinished(blobs)[0]
    data = bytearray(partial.read_bytes())
    data[5000] ^= 1
    partial.write_bytes(data)
    receiver = blobs.receive(ref)
    for part in source.parts(ref.sha256, receiver.offset):
        receiver.feed(part)
    with pytest.raises(LinkLost, match="it is sent again from its start"):
        receiver.finish()
    assert held(blobs, ref) == 0


def test_a_newer_transfer_of_one_owner_takes_over(blobs: Blobs, source: Blobs) -> None:
    ref = source.put(LARGE)
    stream = list(source.parts(ref.sha256, 0, 65536))
    older = blobs.receive(ref, owner="pi")
    other = blobs.receive(ref, owner="jetson")
    for part in stream[:3]:
        older.feed(part)
    newer = blobs.receive(ref, owner="pi")
    assert newer.offset == older.offset > 65536
    with pytest.raises(LinkLost, match="a newer transfer took over"):
        older.feed(stream[3])
    with pytest.raises(LinkLost, match="a newer transfer took over"):
        older.finish()
    older.abandon()
    for part in stream:
        other.feed(part)
    for part in stream[3:]:
        newer.feed(part)
    other.finish()
    newer.finish()
    assert_same(blobs.open(ref), LARGE)
    assert unfinished(blobs) == []


def test_transfers_in_many_threads(blobs: Blobs, source: Blobs) -> None:
    refs = [source.put(Weights({"w": np.full(50_000, i % 4, "f4")})) for i in range(16)]
    faults: list[Exception] = []

    def transfer(i: int) -> None:
        try:
            receiver = blobs.receive(refs[i], owner=str(i))
            for part in source.parts(refs[i].sha256, receiver.offset, 8192):
                receiver.feed(part)
            receiver.finish()
        except LinkLost as fault:
            # the same content came by another owner meanwhile, so there was nothing left to feed
            if not blobs.has(refs[i].sha256):
                faults.append(fault)

    threads = [threading.Thread(target=transfer, args=[i]) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert faults == []
    assert blobs.digests() == {ref.sha256 for ref in refs}


def test_remove_leaves_what_has_arrived(blobs: Blobs, source: Blobs) -> None:
    """Who sends it may be cut off just now, and goes on there."""
    ref = source.put(LARGE)
    receiver = blobs.receive(ref)
    for part in list(source.parts(ref.sha256, 0, 65536))[:3]:
        receiver.feed(part)
    receiver.abandon()
    blobs.put(LARGE)
    blobs.remove(ref.sha256)
    assert not blobs.has(ref.sha256)
    assert held(blobs, ref) > 65536


def test_verify_holds_what_is_here_against_other_limits(blobs: Blobs) -> None:
    ref = blobs.put(Weights({"w": np.array([1, np.nan], "f4")}))
    blobs.verify(ref, limits=Limits(allow_non_finite=True))
    with pytest.raises(RemoteFault, match=r"^agent pi: array 'w': expected finite numbers .* element 1$"):
        blobs.verify(ref, limits=Limits(), where="agent pi")


def test_a_disk_that_fills_up_is_told_and_leaves_nothing(blobs: Blobs, source: Blobs) -> None:
    """The limit of a file's size stands for a full disk: the same error from the same call."""
    ref = source.put(LARGE)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    receiver = blobs.receive(ref)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        with pytest.raises(LocalFault, match=r"^cannot write .*: File too large; free some space there"):
            feed(receiver, source.parts(ref.sha256, 0, 8192))
        receiver.abandon()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert unfinished(blobs) == []


def test_tidy_removes_unfinished_files_of_before(blobs: Blobs, source: Blobs) -> None:
    ref = source.put(LARGE)
    blobs.put(WEIGHTS)
    blobs.receive(ref).abandon()
    (blobs.path(bytes(32)).parent / ".abc.tmp").write_bytes(b"")
    blobs.tidy(before=0)
    assert len(unfinished(blobs)) == 2
    blobs.tidy(before=4e9)
    assert unfinished(blobs) == []
    assert len(blobs.digests()) == 1


def test_receiving_takes_little_memory(blobs: Blobs, source: Blobs) -> None:
    """64 MiB in parts of 512 KiB, cut in the middle."""
    ref = source.put(Blob("x", bytes(64 << 20)))
    gc.collect()
    before = psutil.Process().memory_info()
    parts = source.parts(ref.sha256, 0)
    receiver = blobs.receive(ref)
    for _ in range(64):
        receiver.feed(next(parts))
    receiver.abandon()
    receiver = blobs.receive(ref)
    for part in source.parts(ref.sha256, receiver.offset):
        receiver.feed(part)
    receiver.finish()
    after = psutil.Process().memory_info()
    private = lambda info: info.rss - getattr(info, "shared", 0)  # noqa: E731 - the maps of both files are shared
    assert private(after) - private(before) < 8 << 20
