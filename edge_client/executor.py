"""Where tasks run: in this process, in resident child processes, or in a fresh child per task.

A run that says `isolate` always gets a fresh child. Calls may come from several threads; at most `n_tasks` run at a
time, and never two in one process.
"""

from pathlib import Path
from typing import Protocol

from edge_client.job import Job, Outcome, Progress


class Executor(Protocol):
    """What the agent's loop sees. `run` blocks until the task ends and raises nothing for a task that failed."""

    n_tasks: int  # at a time

    def run(self, job: Job, progress: Progress) -> Outcome: ...

    def cancel(self, agent: str) -> None:
        """End that agent's task if one runs: at once in a child, at its next call of the site in this process."""
        ...

    def close(self) -> None:
        """End all children; a task that runs ends as Failed."""
        ...


def make_executor(blobs: Path, *, workers: int = 0) -> Executor:
    """Over the blobs in that folder: in this process with no workers, else in that many resident children."""
    raise RuntimeError
