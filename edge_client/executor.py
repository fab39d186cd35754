"""Where tasks run: in this process, in resident child processes, or in a fresh child per task.

A run that says `isolate` always gets a fresh child. Calls may come from several threads; at most `n_tasks` run at a
time, and never two in one process.
"""

import os
import queue
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from common import pb
from common.blobs import Blobs
from common.errors import FederationError
from common.task_key import Key
from edge_client import frames
from edge_client.attempt import ENDED, Cancelled, attempt, out_of_memory
from edge_client.job import Failed, Job, Outcome, Progress
from edge_client.workplace import Workplace

EXIT_GRACE_S = 5.0


class Executor(Protocol):
    """What the agent's loop sees. `run` blocks until the task ends and raises nothing for a task that failed."""

    n_tasks: int  # at a time

    def run(self, job: Job, progress: Progress) -> Outcome: ...

    def cancel(self, key: Key) -> None:
        """End that task if it runs: at once in a child, at its next call of the site in this process."""
        ...

    def close(self) -> None:
        """End all children; a task that runs ends as Failed."""
        ...


def make_executor(blobs: Path, *, workers: int = 0) -> Executor:
    """Over the blobs in that folder: in this process with no workers, else in that many resident children."""
    return _Here(blobs) if workers == 0 else _Children(blobs, workers)


class _Here:
    """In this process; what is to be isolated, in a fresh child."""

    n_tasks = 1

    def __init__(self, blobs: Path) -> None:
        self._place = Workplace(Blobs(blobs))
        self._fresh = _Children(blobs, 1)
        self._one_at_a_time = threading.Lock()
        self._cancelled: set[Key] = set()

    def run(self, job: Job, progress: Progress) -> Outcome:
        with self._one_at_a_time:
            if _is_isolated(job, self._place):
                return self._fresh.run_fresh(job, progress)
            key = Key.of(job.offer.key)

            def checked(phase: str, fraction: float) -> None:
                if key in self._cancelled:
                    raise Cancelled
                progress(phase, fraction)

            try:
                return attempt(job, self._place, checked)
            finally:
                self._cancelled.clear()  # of tasks that are over, as all but this one are

    def cancel(self, key: Key) -> None:
        self._cancelled.add(key)
        self._fresh.cancel(key)

    def close(self) -> None:
        self._fresh.close()


class _Children:
    """In child processes; each is started when it is first needed and started again when it has died."""

    def __init__(self, blobs: Path, n_tasks: int) -> None:
        self.n_tasks = n_tasks
        self._blobs = blobs
        self._place = Workplace(Blobs(blobs))
        self._idle: queue.LifoQueue[_Child | None] = queue.LifoQueue()  # None: a place without a process yet
        for _ in range(n_tasks):
            self._idle.put(None)
        self._lock = threading.Lock()
        self._at_work: dict[Key, _Child] = {}
        self._resting: set[_Child] = set()
        self._closed = False

    def run(self, job: Job, progress: Progress) -> Outcome:
        if _is_isolated(job, self._place):
            return self.run_fresh(job, progress)
        child = self._idle.get()
        try:
            if child is not None and not child.is_alive:
                child.end()
                child = None
            if child is None:
                child = _Child(self._blobs, self.n_tasks)
            outcome = self._run_in(child, job, progress, isolated=False)
            if job.memory_limit_bytes is not None and isinstance(outcome, Failed):
                # a failed allocation may have spoilt it (budget.kept), and what it has left mapped is room for the next
                self._put_away(child)
                child = None
            return outcome
        finally:
            self._idle.put(child)

    def run_fresh(self, job: Job, progress: Progress) -> Outcome:
        """In a process of its own, which is measured and ends."""
        place = self._idle.get()
        try:
            child = _Child(self._blobs, self.n_tasks)
            try:
                return self._run_in(child, job, progress, isolated=True)
            finally:
                child.end()
        finally:
            self._idle.put(place)

    def _put_away(self, child: "_Child") -> None:
        with self._lock:
            self._resting.discard(child)
        child.end()

    def cancel(self, key: Key) -> None:
        with self._lock:
            child = self._at_work.get(key)
        if child is not None:
            child.kill()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            working, resting = [*self._at_work.values()], [*self._resting]
        for child in (*working, *resting):
            child.kill()
        for child in resting:  # one that works is ended by the thread that reads from it
            child.end()

    def _run_in(self, child: "_Child", job: Job, progress: Progress, *, isolated: bool) -> Outcome:
        key = Key.of(job.offer.key)
        with self._lock:
            self._resting.discard(child)
            is_last = self._closed
            if not is_last:
                self._at_work[key] = child
        if is_last:
            child.kill()
            child.end()
            return Failed(ENDED)
        try:
            return child.run(job, progress, isolated=isolated)
        except BaseException:
            child.kill()  # its answer would be taken for that of the next job
            raise
        finally:
            with self._lock:
                self._at_work.pop(key, None)
                is_last = self._closed
                if child.is_alive and not is_last:
                    self._resting.add(child)
            if is_last:
                child.end()


class _Child:
    """One child process; `run` from one thread at a time, `kill` from any."""

    def __init__(self, blobs: Path, n_siblings: int = 1) -> None:
        threads = str(max(1, (os.cpu_count() or 1) // n_siblings))  # more would only take turns
        root = str(Path(__file__).resolve().parent.parent)
        found = os.environ.get("PYTHONPATH")
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "edge_client.child", str(blobs)],  # -P: nothing of the current folder
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={
                "OMP_NUM_THREADS": threads,
                **os.environ,
                "PYTHONPATH": root if not found else f"{root}{os.pathsep}{found}",
            },
            start_new_session=True,  # Ctrl-C is for the parent, which ends its children in order
        )
        self._was_ended = False

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def run(self, job: Job, progress: Progress, *, isolated: bool) -> Outcome:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            frames.write_job(stdin, job, isolated=isolated)
        except OSError:
            return self._died(job)
        while (frame := frames.read(stdout)) is not None:
            kind, data = frame
            if kind != frames.PROGRESS:
                return frames.to_outcome(kind, data)
            told = pb.Progress.FromString(data)
            progress(told.phase, told.fraction)
        return self._died(job)

    def kill(self) -> None:
        self._was_ended = True
        self._process.kill()

    def end(self) -> None:
        """Close its input, which ends it; a process that does not end is killed."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):  # what was not written yet to a process that died
                    pipe.close()
        try:
            self._process.wait(EXIT_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _died(self, job: Job) -> Failed:
        code = self._process.wait()
        if self._was_ended:
            return Failed(ENDED)
        if code == -signal.SIGKILL:
            return Failed(out_of_memory(job, "its process was killed, which the system does when memory runs out"))
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return Failed(f"run {job.offer.key.run}: the process that worked for agent {job.agent.name} ended with {how}")


def _is_isolated(job: Job, place: Workplace) -> bool:
    try:
        return place.run_of(job.offer).file.isolate and job.offer.key.kind == pb.WORK
    except FederationError:
        return False  # the task itself will say what is wrong with the run
