"""Which memory an agent has after any course of events."""

import os
from pathlib import Path

import pytest

from common import files, pb
from edge_client import memory
from edge_client.memory import Memories


def record(text: str) -> pb.Record:
    return pb.Record(schema=text.encode())


def pending(step: int, *, run: str = "r", agent: str = "h") -> pb.Pending:
    key = pb.TaskKey(run=run, step=step, agent=agent)
    return pb.Pending(reply=pb.RecordHeader(key=key, record=record(f"reply {step}")), memory=record(f"memory {step}"))


def offer(step: int, merged_step: int, kind: "pb.TaskKind" = pb.WORK) -> pb.Offer:
    return pb.Offer(key=pb.TaskKey(run="r", step=step, agent="h", kind=kind), merged_step=merged_step)


def held(memories: Memories) -> tuple[int, str] | None:
    found = memories.held("r", "h")
    return None if found is None else (found.step, found.memory.schema.decode())


@pytest.fixture
def memories(tmp_path: Path) -> Memories:
    return Memories(tmp_path)


# memory held before, pending step, offer (step, merged), and what is held and pending after
CASES = [
    ("nothing happened", None, None, (0, -1), None, False),
    ("merged", None, 0, (1, 0), (0, "memory 0"), False),
    ("merged, steps without us between", None, 2, (9, 2), (2, "memory 2"), False),
    ("quorum missed", None, 0, (1, -1), None, False),
    ("quorum missed, older one stays", 0, 1, (2, 0), (0, "memory 0"), False),
    ("same step again: still open", 0, 1, (1, 0), (0, "memory 0"), True),
    ("server knows no such step: another life of the run", 4, 5, (0, -1), None, False),
    ("a later step of ours was merged elsewhere", 1, 2, (5, 4), (1, "memory 1"), False),
]


@pytest.mark.parametrize(("what", "before", "pending_step", "offered", "after", "stays"), CASES, ids=lambda v: str(v))
@pytest.mark.parametrize("is_reopened", [False, True])
def test_settling(memories, tmp_path, what, before, pending_step, offered, after, stays, is_reopened) -> None:
    if before is not None:
        memories.commit(pending(before))
        memories.settle(offer(before + 1, before), keep_refused=False)
    if pending_step is not None:
        memories.commit(pending(pending_step))
    if is_reopened:  # as after a kill
        memories = Memories(tmp_path)
    memories.settle(offer(*offered), keep_refused=False)
    for seen in (memories, Memories(tmp_path)):
        assert held(seen) == after
        assert (seen.pending("r", "h") is not None) == stays


def test_what_was_dropped_with_another_life_of_the_run_stays_dropped(memories: Memories, tmp_path: Path) -> None:
    memories.commit(pending(4))
    memories.settle(offer(5, 4), keep_refused=False)
    memories.settle(offer(4, 3), keep_refused=False)  # a server that was set back
    assert held(memories) is None
    assert Memories(tmp_path).pending("r", "h") is None


def test_memory_that_no_task_has_touched_for_long_is_forgotten(memories: Memories, tmp_path: Path) -> None:
    for run in ("r", "old"):
        memories.commit(pending(0, run=run))
    os.utime(tmp_path / "old" / "h" / "pending", (1000, 1000))
    again = Memories(tmp_path)
    again.forget(before=2000)
    assert again.pending("old", "h") is None
    assert again.pending("r", "h") is not None


def test_evaluation_offer_leaves_an_open_reply_pending(memories: Memories) -> None:
    memories.commit(pending(1))
    memories.settle(offer(1, -1, pb.EVALUATE), keep_refused=False)
    assert memories.pending("r", "h") is not None


def test_local_methods_keep_what_was_refused_under_the_step_that_the_server_knows(memories: Memories) -> None:
    memories.commit(pending(0))
    memories.settle(offer(1, 0), keep_refused=True)
    memories.commit(pending(1))
    memories.refused("r", "h", keep_refused=True)
    assert held(memories) == (0, "memory 1")
    memories.commit(pending(2))
    memories.settle(offer(3, 0), keep_refused=True)  # nobody told us that step 2 was refused
    assert held(memories) == (0, "memory 2")


def test_kill_between_promotion_and_its_end_promotes_the_same_again(memories: Memories, tmp_path: Path) -> None:
    memories.commit(pending(0))
    kept = (tmp_path / "r" / "h" / "pending").read_bytes()
    memories.settle(offer(1, 0), keep_refused=False)
    (tmp_path / "r" / "h" / "pending").write_bytes(kept)
    again = Memories(tmp_path)
    again.settle(offer(1, 0), keep_refused=False)
    assert held(again) == (0, "memory 0")
    assert again.pending("r", "h") is None


def test_commit_is_one_rename_with_its_fsyncs(memories: Memories, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    for name in ("fsync_file", "replace", "fsync_folder"):
        original = getattr(files, name)
        monkeypatch.setattr(files, name, lambda *a, name=name, original=original: (calls.append(name), original(*a)))
    memories.commit(pending(0))
    assert calls == ["fsync_file", "replace", "fsync_folder"]


def test_damaged_memory_is_put_aside_and_counts_as_none(memories: Memories, tmp_path: Path, caplog) -> None:
    memories.commit(pending(0))
    memories.settle(offer(1, 0), keep_refused=False)
    (tmp_path / "r" / "h" / "held").write_bytes(b"\xff\xff\xff")
    again = Memories(tmp_path)
    assert again.held_step("r", "h") == memory.NONE
    assert (tmp_path / "r" / "h" / "held.damaged").exists()
    assert "memory_damaged" in caplog.text


@pytest.mark.parametrize("name", ["..", ".", "a/../b", "h/00", "x" * 400, "ü", "a%2Fb"])
def test_any_name_has_its_own_folder_inside(memories: Memories, tmp_path: Path, name: str) -> None:
    memories.commit(pending(0, run=name, agent=name))
    assert memories.pending(name, name) is not None
    assert memories.pending("r", name) is None
    assert len(list(tmp_path.glob("*/*/pending"))) == 1
    assert sorted(r.schema for r in Memories(tmp_path).records()) == [b"memory 0", b"reply 0"]
