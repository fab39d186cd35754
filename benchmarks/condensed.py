"""results.json made small enough to be kept with the code: means over agents by round, accuracies by measurement.

Of single agents only two things are kept: how accuracy depends on the age of the agent's last model, and what each
expert of a tree cost. A file grows over several checkouts and machines: a run says of which commit it is.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks import by_task, columns, expert_costs, results, table
from benchmarks.experiment import Planned
from benchmarks.expert_costs import Cost
from benchmarks.results import EvaluationRow, Results, RoundRow, RunRow
from common import files

DIGITS = 6  # that figures keep
SCORE_DIGITS = 5  # that shares of test images keep: a thousandth of a per cent
FLAT = "flat_softmax"
TABLES = ("rounds", "measured", "ages")  # of a run, written as columns


@dataclass(frozen=True)
class Round:
    """Of the round's merged tasks: `counts` are means over all, `spans` (seconds) over those that have one; `cpu_s` is
    the sum of their work.
    """

    round: int
    seconds: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    cpu_s: float | None = None  # files of before it was kept have none
    counts: Mapping[str, float] = field(default_factory=dict)
    spans: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """`counts` are sums over agents of what `predict` counted: inputs, experts that each decoder evaluated."""

    round: int
    when: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    n_agents: int = 0
    counts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Age:
    """Agents measured so many rounds after they last trained; `gain` is against the same agent's mean over all ages."""

    age: int
    n: int
    accuracy: float
    gain: float


@dataclass(frozen=True)
class Run:
    label: str
    method: str
    seed: int
    stage: str
    status: str
    seconds: float
    config: Mapping[str, Any]  # Any: the run file's table
    rounds: tuple[Round, ...]
    measured: tuple[Measured, ...]
    git: str = ""
    ages: tuple[Age, ...] = ()
    reason: str = ""
    costs: Mapping[str, float] = field(default_factory=dict)  # of one agent's task, see table.costs
    tasks: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # data set -> round -> pooled accuracy
    experts: Mapping[str, Cost] = field(default_factory=dict)  # node -> of one task that trains its expert
    flat: Cost | None = None  # of the net beside which experts stand


@dataclass(frozen=True)
class Condensed:
    experiment: str
    git: str
    versions: Mapping[str, str]
    host: Mapping[str, Any]  # Any: texts and numbers
    runs: tuple[Run, ...]


def of(found: Results) -> Condensed:
    host = {**found.host, "system": str(found.host.get("system", "")).split(" ")[0]}  # the kernel's build is of no use
    runs = tuple(replace(_run(run), git=found.git) for run in found.runs if run.status == "done")
    return Condensed(found.experiment, found.git, found.versions, host, runs)


def joined(new: Condensed, earlier: Iterable[Run], wanted: Sequence[Planned] = ()) -> Condensed:
    """`new` with the earlier runs that it does not replace, in the order of `wanted`.

    `wanted` are all runs that the experiment has today, if that is known: an earlier run that is none of them, because
    its row is gone or its settings are others, is left out.
    """
    asked = {_key(plan): plan.config for plan in wanted}
    runs = {_key(r): r for r in earlier if not wanted or asked.get(_key(r)) == results.as_json(r.config)}
    runs |= {_key(run): run for run in new.runs}
    place = {key: i for i, key in enumerate(asked)}
    return replace(new, runs=tuple(sorted(runs.values(), key=lambda run: place.get(_key(run), len(place)))))


def _key(run: Run | Planned) -> tuple[str, int, str]:
    return run.label, run.seed, run.stage


def save(condensed: Condensed, path: Path) -> None:
    """One line a column of a run's rounds: each name stands once, and people can still read diffs."""
    whole = results.as_json(condensed)
    runs = [_lines(run) for run in whole.pop("runs")]
    head = json.dumps(whole, indent=1, allow_nan=False).removesuffix("\n}")
    text = head + ',\n "runs": [\n' + ",\n".join(runs) + "\n ]\n}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_durably(path, [text.encode()])


def load(path: Path) -> Condensed:
    """Read a condensed file; errors as of `results.read_json`."""
    return results.read_json(Condensed, path, _with_rows)


def ages(rounds: Iterable[RoundRow], evaluations: Iterable[EvaluationRow]) -> tuple[Age, ...]:
    """Accuracy by the number of rounds since an agent last trained (1: in the round before), where it is known."""
    trained = {(r.round, a.agent) for r in rounds for a in r.agents if a.outcome == "merged"}
    found: list[tuple[int, str, float]] = []
    for evaluation in evaluations:
        if (evaluation.when, evaluation.split) == ("merged", "test"):
            for agent in evaluation.agents:
                at = [r for r, name in trained if name == agent.agent and r <= evaluation.round]
                if at and agent.correct is not None and agent.n:
                    found.append((1 + evaluation.round - max(at), agent.agent, agent.correct / agent.n))
    by_agent: dict[str, list[float]] = {}
    by_age: dict[int, list[tuple[float, float]]] = {}
    for _, name, accuracy in found:
        by_agent.setdefault(name, []).append(accuracy)
    for age, name, accuracy in found:
        usual = sum(by_agent[name]) / len(by_agent[name])
        by_age.setdefault(age, []).append((accuracy, accuracy - usual))
    return tuple(
        Age(age, len(pairs), *(round(sum(column) / len(pairs), DIGITS) for column in zip(*pairs, strict=True)))
        for age, pairs in sorted(by_age.items())
    )


def _run(run: RunRow) -> Run:
    measured = [e for e in run.evaluations if e.when not in ("start", "trained")]
    experts = expert_costs.of_experts(run)
    curves = by_task.curves(run)
    return Run(
        label=run.label,
        method=run.method,
        seed=run.seed,
        stage=run.stage,
        status=run.status,
        seconds=round(run.seconds, 3),
        config=run.config,
        rounds=tuple(_round(r) for r in run.rounds),
        measured=tuple(
            Measured(e.round, e.when, _scores(e.metrics), len(e.agents), _short(expert_costs.of_decoding(e)))
            for e in measured
        ),
        ages=ages(run.rounds, run.evaluations),
        reason=run.reason,
        costs=_short(table.costs([run])),
        tasks={
            name: _short({str(r): a for r, a in curve.items()}) for name, curve in curves.items() if len(curves) > 1
        },
        experts=experts,
        flat=expert_costs.of_flat(run) if run.method == FLAT else None,
    )


def _round(row: RoundRow) -> Round:
    merged = [a for a in row.agents if a.outcome == "merged"]
    counts = _means(a.counts for a in merged)
    spans: dict[str, list[float]] = {}
    for span in (span for agent in merged for span in agent.spans):
        if not span.name.startswith(expert_costs.PREFIX):
            spans.setdefault(span.name, []).append(span.seconds)
    cpu_s = round(sum(a.cpu_s for a in merged), 3)
    seconds = _short({name: fmean(of_tasks) for name, of_tasks in spans.items()})
    return Round(row.round, round(row.seconds, 3), _scores(row.metrics), cpu_s, counts, seconds)


def _means(tables: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Over all tables; one that lacks a name has zero of it."""
    tables = list(tables)
    names = dict.fromkeys(name for one in tables for name in one)
    return _short({name: sum(one.get(name, 0.0) for one in tables) / len(tables) for name in names})


def _scores(metrics: Mapping[str, float]) -> dict[str, float]:
    """Losses of test data are not shown anywhere, and bytes stand with the run's costs."""
    kept = {name: value for name, value in metrics.items() if name == "train_loss" or "loss" not in name}
    kept.pop("bytes_per_round", None)
    return {name: round(value, SCORE_DIGITS) for name, value in kept.items()}


def _short(numbers: Mapping[str, Any]) -> dict[str, Any]:
    return {name: round(v, DIGITS) if isinstance(v, float) else v for name, v in numbers.items()}


def _lines(run: dict[str, Any]) -> str:
    parts = []
    for name, value in run.items():
        is_table = name in TABLES and value
        told = columns.text(columns.of_rows(value), 3) if is_table else json.dumps(value, allow_nan=False)
        parts.append(f'   "{name}": {told}')
    return "  {\n" + ",\n".join(parts) + "\n  }"


def _with_rows(whole: Any) -> Any:  # Any: JSON, whose form is checked afterwards
    for run in whole["runs"] if isinstance(whole, dict) and isinstance(whole.get("runs"), list) else ():
        for name in TABLES:
            if isinstance(run, dict) and isinstance(run.get(name), dict):
                run[name] = columns.to_rows(run[name])
    return whole
