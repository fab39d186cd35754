"""What pages are made of: condensed runs by label, tables, "not run"."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import condensed
from benchmarks.condensed import Condensed, Run
from benchmarks.table import pooled

NOT_RUN = "not run"
Of = Callable[[Run], float | None]


@dataclass(frozen=True)
class Kept:
    """An experiment's finished runs; nothing when it was not run."""

    found: Condensed | None
    runs: tuple[Run, ...] = field(default=())

    def of(self, label: str) -> list[Run]:
        return [run for run in self.runs if run.label == label]

    @property
    def labels(self) -> list[str]:
        return list(dict.fromkeys(run.label for run in self.runs))


def kept(folder: Path, experiment: str) -> Kept:
    path = folder / f"{experiment}.json"
    if not path.exists():
        return Kept(None)
    found = condensed.load(path)
    return Kept(found, tuple(run for run in found.runs if run.status == "done"))


def mean(runs: Iterable[Run], of: Of) -> tuple[float, float | None] | None:
    """Over seeds, with the standard deviation when there are several."""
    values = [value for run in runs if (value := of(run)) is not None]
    if not values:
        return None
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def shown(value: tuple[float, float | None] | None, scale: float = 1.0, digits: int = 2) -> str:
    if value is None:
        return NOT_RUN
    spread = "" if value[1] is None else f" ± {scale * value[1]:.{digits}f}"
    return f"{scale * value[0]:.{digits}f}{spread}"


def percent(runs: Iterable[Run], of: Of) -> str:
    return shown(mean(runs, of), 100.0)


def last(when: str) -> Of:
    """Accuracy of that moment in the last round that has it, pooled over test samples."""

    def of(run: Run) -> float | None:
        suffix = "" if when == "merged" else f"_{when}"
        # of test data: a moment may have been measured on held-out data too
        values = [
            v for m in run.measured if m.when == when and (v := pooled(m.metrics, f"accuracy{suffix}")) is not None
        ]
        return values[-1] if values else None

    return of


def at(round_number: int) -> Of:
    def of(run: Run) -> float | None:
        found = [m for m in run.measured if m.when == "merged" and m.round == round_number]
        return pooled(found[-1].metrics, "accuracy") if found else None

    return of


def window(moment: str, first: int, to: int) -> Of:
    """Mean over rounds of the participants' accuracy before ("start") or after ("trained") their training."""

    def of(run: Run) -> float | None:
        values = [
            value for r in run.rounds if first <= r.round <= to and (value := during(r.metrics, moment)) is not None
        ]
        return statistics.fmean(values) if len(values) == to - first + 1 else None

    return of


def tail(moment: str) -> Of:
    """As `window`, over the last ten rounds."""

    def of(run: Run) -> float | None:
        values = [v for r in run.rounds[-10:] if (v := during(r.metrics, moment)) is not None]
        return statistics.fmean(values) if values else None

    return of


def during(metrics: Mapping[str, float], moment: str) -> float | None:
    """Of the agents' own models where the method has such, else of the common one."""
    for name in (f"personal_accuracy_weighted_{moment}", f"accuracy_{moment}"):
        if name in metrics:
            return metrics[name]
    return None


def column(name: str) -> Of:
    """A count that agents report, mean over the last half of the rounds."""

    def of(run: Run) -> float | None:
        rounds = run.rounds[len(run.rounds) // 2 :]
        return statistics.fmean(r.counts.get(name, 0.0) for r in rounds) if rounds else None

    return of


def grid(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [list(titles), ["---" if i == 0 else "---:" for i in range(len(titles))], *map(list, rows)]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)
