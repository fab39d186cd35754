"""Tasks in this process and in real child processes: same results; a process that dies is a sentence, not a hang."""

import errno
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from common import pb
from common.blobs import Blobs
from common.task_key import Key
from edge_client import executor as executors
from edge_client.executor import Executor, make_executor
from edge_client.job import Failed, Finished, Job, Outcome, PreparedData, Skipped
from tests.edge_client import pets

ENDLESS = {"optimiser.epochs": 10**7}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return pets.write_data(tmp_path / "pets.npz")


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "blobs", durable=False)


@pytest.fixture(params=[0, 1], ids=["here", "child"])
def executor(tmp_path: Path, blobs: Blobs, request: pytest.FixtureRequest) -> Iterator[Executor]:
    made = make_executor(tmp_path / "blobs", workers=request.param)
    yield made
    made.close()


@pytest.fixture
def child(tmp_path: Path, blobs: Blobs) -> Iterator[Executor]:
    made = make_executor(tmp_path / "blobs", workers=1)
    yield made
    made.close()


def quietly(phase: str, fraction: float) -> None:
    pass


def finished(outcome: Outcome) -> Finished:
    assert isinstance(outcome, Finished), outcome
    return outcome


def processes() -> list[psutil.Process]:
    return [p for p in psutil.Process().children() if "edge_client.child" in command(p)]


def command(process: psutil.Process) -> list[str]:
    """Empty for one that was killed and has not been waited for: progress that it told before may still come."""
    try:
        return process.cmdline()
    except (psutil.ZombieProcess, psutil.NoSuchProcess):
        return []


def kill_children(phase: str, fraction: float) -> None:
    for process in processes():
        process.kill()


def test_a_job_ends_the_same_here_and_in_a_child(executor: Executor, tmp_path: Path, blobs: Blobs, data: Path) -> None:
    told: list[str] = []
    job = pets.job(blobs, data, moments=["start", "trained"])
    first = finished(executor.run(job, lambda phase, fraction: told.append(phase)))
    here = make_executor(tmp_path / "blobs")
    again = finished(here.run(job, quietly))
    assert first.reply == again.reply
    assert first.memory == again.memory
    assert [e.sums for e in first.evaluations] == [e.sums for e in again.evaluations]
    assert told[0] == "train"
    assert "evaluate" in told


def test_memory_and_preparation_pass_through(executor: Executor, blobs: Blobs, data: Path) -> None:
    job = pets.job(blobs, data)
    memory = finished(executor.run(job, quietly)).memory
    assert memory is not None
    assert finished(executor.run(replace(job, memory=memory), quietly)).memory == memory
    prepared = executor.run(pets.job(blobs, data, kind=pb.PREPARE), quietly)
    assert isinstance(prepared, PreparedData)
    assert (prepared.classes, prepared.data.n_train) == (pets.CLASSES, pets.N_TRAIN)


def test_the_second_task_of_a_process_is_warm(executor: Executor, blobs: Blobs, data: Path) -> None:
    job = pets.job(blobs, data)
    assert [finished(executor.run(job, quietly)).report.warmup for _ in range(2)] == [True, False]


def test_isolated_runs_get_a_process_each(executor: Executor, blobs: Blobs, data: Path) -> None:
    job = pets.job(blobs, data, {"isolate": True})
    plain = finished(executor.run(pets.job(blobs, data), quietly))
    before = len(processes())
    for _ in range(2):
        outcome = finished(executor.run(job, quietly))
        assert outcome.report.isolated
        assert not outcome.report.warmup
        assert outcome.reply == plain.reply
    assert len(processes()) == before


def test_what_a_task_raises_is_a_sentence(executor: Executor, blobs: Blobs, data: Path) -> None:
    missing = pets.job(blobs, data.with_name("none.npz"))
    outcome = executor.run(missing, quietly)
    assert isinstance(outcome, Failed)
    assert outcome.cannot
    assert "none.npz do not exist; expected a folder" in outcome.reason
    broken = pets.job(blobs, data)
    broken.offer.task.schema = b"x"
    outcome = executor.run(broken, quietly)
    assert isinstance(outcome, Failed)
    assert not outcome.cannot
    assert "run r, round 1, agent a" in outcome.reason


def test_a_method_that_has_nothing_to_do_skips(executor: Executor, blobs: Blobs, data: Path) -> None:
    pets.write_data(data, n_train=0)
    assert executor.run(pets.job(blobs, data), quietly) == Skipped("no training samples")


def test_a_child_that_is_killed_is_reported_and_replaced(child: Executor, blobs: Blobs, data: Path) -> None:
    outcome = child.run(pets.job(blobs, data, ENDLESS), kill_children)
    assert isinstance(outcome, Failed)
    assert "its process was killed, which the system does when memory runs out" in outcome.reason
    finished(child.run(pets.job(blobs, data), quietly))


@pytest.mark.parametrize("settings", [{}, {"isolate": True}], ids=["resident", "isolated"])
def test_a_process_that_cannot_be_started_costs_no_place(
    child: Executor, blobs: Blobs, data: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, bool]
) -> None:
    def no_memory(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    job = pets.job(blobs, data, settings)
    with monkeypatch.context() as patched:
        patched.setattr(subprocess, "Popen", no_memory)
        with pytest.raises(OSError, match="Cannot allocate memory"):
            child.run(job, quietly)
    found: list[Outcome] = []
    thread = threading.Thread(target=lambda: found.append(child.run(job, quietly)), daemon=True)
    thread.start()
    thread.join(60)
    assert len(found) == 1
    finished(found[0])


def test_a_task_is_cancelled(executor: Executor, blobs: Blobs, data: Path) -> None:
    job = pets.job(blobs, data, ENDLESS)
    outcome = executor.run(job, lambda *_: executor.cancel(Key.of(job.offer.key)))
    assert outcome == Failed("the task was ended before it was done")
    finished(executor.run(pets.job(blobs, data), quietly))


def test_a_cancel_that_comes_late_does_not_hit_the_next_task(executor: Executor, blobs: Blobs, data: Path) -> None:
    before = Key.of(pets.job(blobs, data).offer.key)
    job = pets.job(blobs, data)
    job.offer.key.step = before.step + 1
    finished(executor.run(job, lambda *_: executor.cancel(before)))


def test_close_ends_a_running_child(child: Executor, blobs: Blobs, data: Path) -> None:
    started = threading.Event()
    found: list[Outcome] = []

    def work(job: Job) -> None:
        found.append(child.run(job, lambda phase, fraction: started.set()))

    thread = threading.Thread(target=work, args=[pets.job(blobs, data, ENDLESS)])
    thread.start()
    assert started.wait(60)
    child.close()
    thread.join(60)
    assert not thread.is_alive()
    assert isinstance(found[0], Failed)
    assert processes() == []


def test_close_as_a_resting_child_is_taken_ends_the_task_as_failed(
    child: Executor, blobs: Blobs, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished(child.run(pets.job(blobs, data), quietly))
    run_in = executors._Children._run_in

    def later(self: executors._Children, *given: Any, **named: Any) -> Outcome:
        self.close()
        return run_in(self, *given, **named)

    monkeypatch.setattr(executors._Children, "_run_in", later)
    assert child.run(pets.job(blobs, data), quietly) == Failed("the task was ended before it was done")
    assert processes() == []


def test_close_between_two_messages_of_a_child_ends_its_task_as_failed(
    child: Executor, blobs: Blobs, data: Path
) -> None:
    def close(phase: str, fraction: float) -> None:
        child.close()  # in this thread, which reads on afterwards

    assert child.run(pets.job(blobs, data, ENDLESS), close) == Failed("the task was ended before it was done")
    assert processes() == []


@pytest.mark.parametrize("learner", ["numpy", "torch"])
def test_a_memory_budget_is_for_what_comes_above_the_idle_child(
    child: Executor, blobs: Blobs, data: Path, learner: str
) -> None:
    """torch maps twenty times as much as this budget when it is imported: that is no part of it, in any task."""
    if learner == "torch":
        pytest.importorskip("torch")

    def limited(hidden: int, **offer: int) -> Job:
        job = pets.job(blobs, data, {"model.name": "mlp", "model.hidden": hidden, "optimiser.batch": 40}, **offer)
        return replace(job, agent=replace(job.agent, learner=learner), memory_limit_bytes=32 << 20)

    assert isinstance(child.run(limited(100, kind=pb.PREPARE), quietly), PreparedData)
    finished(child.run(limited(100), quietly))
    outcome = child.run(limited(1_000_000), quietly)  # 40 MB of weights, and 160 of activations
    assert isinstance(outcome, Failed)
    assert outcome.cannot
    assert outcome.reason.startswith(
        "run r: the task of agent a needs more memory than its budget of 34 MB above the idle process allows; "
        "use a smaller model or batch, or a larger --memory-budget: "
    )
    finished(child.run(limited(100), quietly))
    finished(child.run(replace(limited(1_000_000), memory_limit_bytes=None), quietly))


def test_two_workers_work_at_once_in_two_processes(tmp_path: Path, blobs: Blobs, data: Path) -> None:
    executor = make_executor(tmp_path / "blobs", workers=2)
    both = threading.Barrier(2)
    found: list[Outcome] = []

    def work(name: str) -> None:
        job = pets.job(blobs, data)
        met = False

        def meet(phase: str, fraction: float) -> None:
            nonlocal met
            if not met:
                met = True
                both.wait(60)

        found.append(executor.run(replace(job, agent=replace(job.agent, name=name)), meet))

    threads = [threading.Thread(target=work, args=[name]) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len([finished(outcome) for outcome in found]) == 2
    assert executor.n_tasks == len(processes()) == 2
    executor.close()
    assert processes() == []
