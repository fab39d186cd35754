"""results.json made small enough to be kept with the code: means over agents by round, accuracies by measurement.

Of single agents only one thing is kept: how accuracy depends on the age of the agent's last model.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import results, table
from benchmarks.results import EvaluationRow, Results, RoundRow, RunRow
from common import files
from common.errors import EXIT_DATA, ConfigError
from common.toml_reader import Problems, read

DIGITS = 6  # that figures keep


@dataclass(frozen=True)
class Round:
    """`counts` and `spans` (seconds) are means over the round's merged tasks, `cpu_s` is the sum of their work."""

    round: int
    seconds: float
    cpu_s: float
    metrics: Mapping[str, float]
    counts: Mapping[str, float] = field(default_factory=dict)
    spans: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    round: int
    when: str
    metrics: Mapping[str, float]
    n_agents: int


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
    ages: tuple[Age, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Condensed:
    experiment: str
    git: str
    versions: Mapping[str, str]
    host: Mapping[str, Any]  # Any: texts and numbers
    runs: tuple[Run, ...]
    table: tuple[Mapping[str, Any], ...]  # Any: one column's text or number


def of(found: Results) -> Condensed:
    rows = tuple(found.table) or tuple(table.rows(found.runs))
    host = {**found.host, "system": str(found.host.get("system", "")).split(" ")[0]}  # the kernel's build is of no use
    return Condensed(
        found.experiment, found.git, found.versions, host, tuple(map(_run, found.runs)), tuple(map(_short, rows))
    )


def save(condensed: Condensed, path: Path) -> None:
    """One line a round: the file is read by people in diffs, too."""
    whole = results.as_json(condensed)
    runs = [_lines(run) for run in whole.pop("runs")]
    head = json.dumps(whole, indent=1, allow_nan=False).removesuffix("\n}")
    text = head + ',\n "runs": [\n' + ",\n".join(runs) + "\n ]\n}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_durably(path, [text.encode()])


def load(path: Path) -> Condensed:
    """Read a condensed file.

    Raises:
        ConfigError: there is none, or it is not of this form.
    """
    try:
        whole = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read condensed results {path}: {error}", exit_code=EXIT_DATA) from error
    problems = Problems(str(path))
    found = read(Condensed, whole, problems) if isinstance(whole, dict) else None
    if found is None:
        told = "\n".join(problems.found[:5]) or f"{path}: expected an object, got {type(whole).__name__}"
        raise ConfigError(told, exit_code=EXIT_DATA)
    return found


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
    return Run(
        label=run.label,
        method=run.method,
        seed=run.seed,
        stage=run.stage,
        status=run.status,
        seconds=round(run.seconds, 3),
        config=run.config,
        rounds=tuple(_round(r) for r in run.rounds),
        measured=tuple(Measured(e.round, e.when, _short(e.metrics), len(e.agents)) for e in measured),
        ages=ages(run.rounds, run.evaluations),
        reason=run.reason,
    )


def _round(row: RoundRow) -> Round:
    merged = [a for a in row.agents if a.outcome == "merged"]
    counts = _means(a.counts for a in merged)
    spans = _means({span.name: span.seconds for span in a.spans} for a in merged)
    cpu_s = round(sum(a.cpu_s for a in merged), 3)
    return Round(row.round, round(row.seconds, 3), cpu_s, _short(row.metrics), counts, spans)


def _means(tables: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Over all tables; one that lacks a name has zero of it."""
    tables = list(tables)
    names = dict.fromkeys(name for one in tables for name in one)
    return _short({name: sum(one.get(name, 0.0) for one in tables) / len(tables) for name in names})


def _short(numbers: Mapping[str, Any]) -> dict[str, Any]:
    return {name: round(v, DIGITS) if isinstance(v, float) else v for name, v in numbers.items()}


def _lines(run: dict[str, Any]) -> str:
    parts = []
    for name, value in run.items():
        if name in ("rounds", "measured") and value:
            inner = ",\n".join(f"    {json.dumps(item, allow_nan=False)}" for item in value)
            parts.append(f'   "{name}": [\n{inner}\n   ]')
        else:
            parts.append(f'   "{name}": {json.dumps(value, allow_nan=False)}')
    return "  {\n" + ",\n".join(parts) + "\n  }"
