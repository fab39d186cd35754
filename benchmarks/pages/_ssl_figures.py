"""What the page on self-supervision reads of condensed runs: accuracy by task and stage, gaps, rounds until near."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.by_task import Curve, rounds_until
from benchmarks.condensed import Run
from benchmarks.pages._parts import NOT_RUN, Kept, Of, last, mean, percent

TASKS = {"flowers102_all": ("flowers", 102), "intel_scenes_all": ("scenes", 6)}  # in text, classes
SCRATCH, LOCAL, FEDERATED = "from scratch", "local-only SSL", "federated SSL"
RANDOM = "random backbone, frozen"
NEAR = 0.95


@dataclass(frozen=True)
class Arm:
    """One row of the experiment in one of its stages."""

    label: str
    stage: str


@dataclass(frozen=True)
class Gap:
    """How far one arm is above another, in points; means over the seeds that both have."""

    points: float
    deviation: float | None  # of the gap over seeds; None with one seed

    @property
    def is_clear(self) -> bool:
        """Beyond the deviation over seeds; with one seed, beyond a point."""
        return abs(self.points) > (1.0 if self.deviation is None else self.deviation)

    def __str__(self) -> str:
        spread = " (one seed)" if self.deviation is None else f" ± {self.deviation:.2f}"
        return f"{self.points:+.2f}{spread}"


def runs_of(found: Kept, arm: Arm, seed: int | None = None) -> list[Run]:
    return [run for run in found.of(arm.label) if run.stage == arm.stage and seed in (None, run.seed)]


def curve(run: Run, task: str) -> Curve:
    return {int(number): accuracy for number, accuracy in run.tasks.get(task, {}).items()}


def accuracy(task: str) -> Of:
    """Of that task in the last round; "" stands for the one task of a run that has no other."""

    def of(run: Run) -> float | None:
        seen = curve(run, task)
        return seen[max(seen)] if seen else last("merged")(run) if not task else None

    return of


def average(run: Run) -> float | None:
    values = [accuracy(task)(run) for task in TASKS]
    return None if None in values else statistics.fmean(value for value in values if value is not None)


def cells(runs: list[Run]) -> list[str]:
    """Accuracy in per cent by task, and the mean of both tasks."""
    return [*(percent(runs, accuracy(task)) for task in TASKS), percent(runs, average)]


def gap(found: Kept, arm: Arm, below: Arm, task: str) -> Gap | None:
    """Of the first above the second, paired by seed."""
    firsts, seconds = ({run.seed: run for run in runs_of(found, one)} for one in (arm, below))
    pairs = [(accuracy(task)(firsts[seed]), accuracy(task)(seconds[seed])) for seed in firsts if seed in seconds]
    points = [100 * (a - b) for a, b in pairs if a is not None and b is not None]
    if not points:
        return None
    return Gap(statistics.fmean(points), statistics.stdev(points) if len(points) > 1 else None)


def told(value: Gap | None) -> str:
    return NOT_RUN if value is None else str(value)


def goal(found: Kept, task: str) -> float | None:
    """Near what training from scratch ends at, mean over its seeds."""
    end = mean(runs_of(found, Arm(SCRATCH, "full")), accuracy(task))
    return None if end is None else NEAR * end[0]


def rounds_to(runs: Iterable[Run], task: str, accuracy_wanted: float | None) -> str:
    """Mean over seeds; how many came so far, when not all did."""
    seen = [curve(run, task) for run in runs]
    if accuracy_wanted is None or not any(seen):
        return NOT_RUN
    reached = [n for one in seen if (n := rounds_until(one, accuracy_wanted)) is not None]
    if not reached:
        return "never"
    few = "" if len(reached) == len(seen) else f" ({len(reached)} of {len(seen)} seeds)"
    return f"{statistics.fmean(reached):.1f}{few}"
