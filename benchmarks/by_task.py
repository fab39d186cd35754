"""`python -m benchmarks.by_task DIR`: accuracy of every stage by task, and in how many rounds it came near a row."""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.results import Results, RunRow, load
from common.errors import ConfigError, FederationError

Curve = dict[int, float]  # round -> accuracy, pooled over the agents of one task
Place = tuple[str, str]  # row, stage


def curves(run: RunRow) -> dict[str, Curve]:
    """By task, of the whole label space of the test part after the rounds that were evaluated."""
    found: dict[str, Curve] = {}
    for evaluation in run.evaluations:
        if (evaluation.when, evaluation.label_space, evaluation.split) != ("merged", "all", "test"):
            continue
        sums: dict[str, tuple[int, int]] = {}
        for agent in evaluation.agents:
            if agent.correct is not None:
                right, n = sums.get(agent.task, (0, 0))
                sums[agent.task] = (right + agent.correct, n + agent.n)
        for task, (right, n) in sums.items():
            found.setdefault(task, {})[evaluation.round] = right / max(1, n)
    return found


def gathered(results: Results) -> dict[Place, dict[str, list[Curve]]]:
    """Curves of every row and stage by task, one for each seed that ended well."""
    places: dict[Place, dict[str, list[Curve]]] = {}
    for run in results.runs:
        if run.status == "done":
            for task, curve in curves(run).items():
                places.setdefault((run.label, run.stage), {}).setdefault(task, []).append(curve)
    return places


def rounds_until(curve: Curve, accuracy: float) -> int | None:
    return next((number for number in sorted(curve) if curve[number] >= accuracy), None)


def markdown(results: Results, near: Place | None = None, share: float = 0.95) -> str:
    """A line for each row and stage; with `near`, rounds until `share` of that row's last accuracy, per task.

    Raises:
        ConfigError: there is no such row and stage.
    """
    places = gathered(results)
    tasks = sorted({task for by_task in places.values() for task in by_task})
    goals: dict[str, float] = {}
    if near is not None:
        if near not in places:
            known = ", ".join("/".join(place) for place in places)
            raise ConfigError(f"no finished row and stage {'/'.join(near)!r}; there are {known or 'none'}")
        goals = {task: share * statistics.fmean(map(_last, found)) for task, found in places[near].items()}
    titles = ["row", "stage", *tasks, *(f"{task}, rounds to {100 * share:.0f} %" for task in goals), "seeds"]
    lines = [titles, ["---", "---", *["---:"] * (len(titles) - 2)]]
    for (label, stage), by_task in places.items():
        seeds = max(len(found) for found in by_task.values())
        cells = [_accuracy(by_task.get(task, [])) for task in tasks]
        cells += [_rounds(by_task.get(task, []), goal) for task, goal in goals.items()]
        lines.append([label, stage, *cells, str(seeds)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _last(curve: Curve) -> float:
    return curve[max(curve)]


def _accuracy(found: Sequence[Curve]) -> str:
    values = [100 * _last(curve) for curve in found]
    if not values:
        return ""
    return f"{statistics.fmean(values):.2f}" + (f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else "")


def _rounds(found: Sequence[Curve], goal: float) -> str:
    """Mean over seeds; "-" when one of them never came so far."""
    reached = [rounds_until(curve, goal) for curve in found]
    numbers = [number for number in reached if number is not None]
    return "" if not reached else f"{statistics.fmean(numbers):.1f}" if len(numbers) == len(reached) else "-"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.by_task", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help="output folder with a results.json")
    parser.add_argument("--near", metavar="ROW/STAGE", help="rounds until 95 %% of this one's accuracy")
    args = parser.parse_args(argv)
    try:
        label, _, stage = (args.near or "").rpartition("/")
        print(markdown(load(args.folder / "results.json"), (label, stage) if args.near else None), end="")
    except FederationError as fault:
        print(f"by_task: {fault}", file=sys.stderr)
        return fault.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
