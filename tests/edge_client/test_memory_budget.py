"""What a memory budget is for, in real child processes; that it is enforced is tested with the executor."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common import pb
from common.blobs import Blobs
from edge_client import attempt as attempting
from edge_client.executor import Executor, make_executor
from edge_client.job import AgentConfig, Failed, Finished, PreparedData
from edge_client.workplace import Workplace
from tests.edge_client import pets

MIB = 1 << 20


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Executor]:
    made = make_executor(tmp_path / "blobs", workers=1)
    yield made
    made.close()


def test_opening_the_named_data_set_of_a_run_is_no_part_of_a_task_s_budget(
    child: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A benchmark's data set is everybody's, and large; the agent's own part of it is what its task reads."""
    monkeypatch.setenv("EDGEFED_DATA", str(tmp_path))
    n = 48 * MIB // (4 * pets.DIM)
    y = np.arange(n) % 2
    np.savez_compressed(  # an archive that cannot be mapped, and is held in memory
        tmp_path / "large.npz", x=np.zeros((n, pets.DIM), np.float32), y=y, x_test=np.zeros((4, pets.DIM), np.float32),
        y_test=y[:4], classes=["cat", "owl"],
    )  # fmt: skip
    settings = {"data.name": "large", "data.shots": 4, "data.n_agents": 1, "evaluation.every": 0}
    for kind, answer in ((pb.PREPARE, PreparedData), (pb.WORK, Finished)):
        job = pets.job(Blobs(tmp_path / "blobs", durable=False), tmp_path, settings, kind=kind)
        job.offer.data.CopyFrom(pb.DataIndex(of=1))
        job = replace(job, agent=AgentConfig("a", named=True, learner="numpy"), memory_limit_bytes=16 * MIB)
        assert isinstance(outcome := child.run(job, lambda phase, fraction: None), answer), outcome


@pytest.mark.parametrize(
    ("said", "limit", "is_memory"),
    [
        ("DefaultCPUAllocator: can't allocate memory: you tried to allocate 2457600 bytes", None, True),
        ("could not create a primitive", 16 * MIB, True),
        ("could not execute a primitive", 16 * MIB, True),
        ("could not create a primitive", None, False),
        ("shapes do not fit", 16 * MIB, False),
    ],
)
def test_what_libraries_say_under_a_limit_is_told_as_a_lack_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, limit: int | None, is_memory: bool
) -> None:
    """oneDNN, which torch convolves with, has no word for memory: without a limit its failure may be anything."""

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError(said)

    monkeypatch.setattr(attempting, "run_job", fails)
    blobs = Blobs(tmp_path / "blobs", durable=False)
    job = replace(pets.job(blobs, tmp_path), memory_limit_bytes=limit)
    outcome = attempting.attempt(job, Workplace(blobs), lambda phase, fraction: None)
    assert isinstance(outcome, Failed)
    assert outcome.cannot == is_memory
    assert said in outcome.reason
    assert ("needs more memory than" in outcome.reason) == is_memory


def test_a_task_that_ran_out_of_memory_does_not_spoil_the_next(child: Executor, tmp_path: Path) -> None:
    """oneDNN remembers a failed allocation for as long as the thread lives that met it, and then always fails."""
    pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    images, y = rng.integers(0, 256, (40, 16, 16, 3), np.uint8), np.arange(40) % 2
    np.savez(tmp_path / "images.npz", x=images, y=y, x_test=images[:4], y_test=y[:4], classes=["cat", "owl"])
    model = {"model.name": "gn_cnn", "model.input": "16x16x3", "model.width": 8, "model.blocks": 1}
    blobs = Blobs(tmp_path / "blobs", durable=False)

    def outcome(limit_bytes: int) -> object:
        job = pets.job(blobs, tmp_path / "images.npz", {**model, "optimiser.batch": 40, "evaluation.every": 0})
        return child.run(replace(job, memory_limit_bytes=limit_bytes), lambda phase, fraction: None)

    reasons = [o.reason for kib in (64, 128, 256, 512, 1024) if isinstance(o := outcome(kib << 10), Failed)]
    assert any("could not create a primitive" in reason for reason in reasons), reasons
    assert isinstance(found := outcome(64 * MIB), Finished), found


def test_what_an_earlier_task_has_left_is_no_further_room_for_the_next(child: Executor, tmp_path: Path) -> None:
    """The C library keeps what a task has freed; a limit above that would be past the budget."""
    pytest.importorskip("torch")
    images = np.random.default_rng(1).integers(0, 256, (60, 32, 32, 3), np.uint8)
    y = np.arange(60) % 2
    np.savez(tmp_path / "images.npz", x=images, y=y, x_test=images[:4], y_test=y[:4], classes=["cat", "owl"])
    settings = {"model.name": "gn_cnn", "model.input": "32x32x3", "model.width": 32, "optimiser.batch": 60}
    job = pets.job(
        Blobs(tmp_path / "blobs", durable=False), tmp_path / "images.npz", settings | {"evaluation.every": 0}
    )
    outcomes = [child.run(replace(job, memory_limit_bytes=24 * MIB), lambda phase, fraction: None) for _ in range(4)]
    assert [type(outcome) for outcome in outcomes] == [Failed] * 4
    assert isinstance(child.run(replace(job, memory_limit_bytes=256 * MIB), lambda *_: None), Finished)
