"""results.json as code: what an experiment keeps of its runs, checked whenever it is read.

Names of metrics are those of server/reporting.py. Fractions are in [0, 1]; sizes are bytes.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from common import files, pb
from common.errors import EXIT_DATA, ConfigError
from common.toml_reader import Problems, read
from server.reporting import COMMON, pooled

T = TypeVar("T")
LAST = 5  # rounds behind every "…_mean_last5"


@dataclass(frozen=True)
class SpanRow:
    """What one named part of a task cost (one expert, say)."""

    name: str
    seconds: float
    cpu_s: float
    rss_peak_delta_bytes: int
    n_samples: int
    data_bytes: int
    model_bytes: int


@dataclass(frozen=True)
class AgentRow:
    """One task of one agent. Bytes are None when the transfer report did not arrive in time."""

    agent: str
    task: str  # the agent's data set
    outcome: str  # merged, late, skipped, failed, lost
    warmup: bool = False
    shared: bool = False
    isolated: bool = False
    phase: str = ""
    reason: str = ""
    n_samples: int = 0
    n_steps: int = 0
    train_s: float = 0.0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    seconds: Mapping[str, float] = field(default_factory=dict)
    rss_peak_delta_bytes: int = 0
    rss_peak_bytes: int = 0
    vm_hwm_bytes: int = 0
    accelerator_peak_bytes: int = 0
    data_bytes: int = 0
    model_bytes: int = 0
    bytes_up: int | None = None
    bytes_down: int | None = None
    loss: float | None = None
    counts: Mapping[str, float] = field(default_factory=dict)
    spans: tuple[SpanRow, ...] = ()


@dataclass(frozen=True)
class RoundRow:
    round: int
    seconds: float
    quorum_missed: bool = False
    metrics: Mapping[str, float] = field(default_factory=dict)
    agents: tuple[AgentRow, ...] = ()


@dataclass(frozen=True)
class EvaluatedAgent:
    """`correct` is None when the run did not ask for accuracy; `loss` and `metrics` are means over the n examples."""

    agent: str
    task: str
    n: int
    reading: str  # which of the method's readings `correct` and `loss` are of
    correct: int | None = None
    loss: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    bytes_up: int | None = None  # of its evaluation offer, which may have several moments; None inside a task
    bytes_down: int | None = None


@dataclass(frozen=True)
class EvaluationRow:
    """One moment, label space and split of one round, over the agents that answered; metrics are pooled over them."""

    round: int
    when: str
    label_space: str
    split: str
    agents: tuple[EvaluatedAgent, ...]
    metrics: Mapping[str, float]
    extra: Mapping[str, Any] = field(default_factory=dict)  # Any: JSON; missing agents, seconds


@dataclass(frozen=True)
class RunRow:
    """One finished run; `stage` is empty unless the experiment has stages."""

    label: str
    method: str
    seed: int
    config: Mapping[str, Any]  # Any: the run file's table
    status: str
    final: Mapping[str, float]
    rounds: tuple[RoundRow, ...]
    evaluations: tuple[EvaluationRow, ...]
    stage: str = ""
    reason: str = ""
    state_sha256: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Results:
    experiment: str
    git: str
    versions: Mapping[str, str]
    host: Mapping[str, Any]  # Any: texts and numbers
    runs: tuple[RunRow, ...] = ()
    table: tuple[Mapping[str, Any], ...] = ()  # Any: one column's text or number


# ------------------------------------------------------------------ from the server


def from_detail(detail: pb.RunDetail, *, label: str, seed: int, stage: str, config: Mapping[str, Any]) -> RunRow:
    """What the server tells of a run that has ended, as it is kept."""
    rounds = tuple(_round(r) for r in detail.rounds)
    evaluations = tuple(_evaluations(detail))
    summary = detail.summary
    return RunRow(
        label=label,
        method=summary.method,
        seed=seed,
        config=config,
        status=summary.status,
        final=final(rounds, evaluations),
        rounds=rounds,
        evaluations=evaluations,
        stage=stage,
        reason=summary.reason,
        state_sha256=summary.state_sha256,
        seconds=max(0.0, summary.finished_at - summary.created_at),
    )


def final(rounds: tuple[RoundRow, ...], evaluations: tuple[EvaluationRow, ...]) -> dict[str, float]:
    """The last round's metrics, and the mean over the last five rounds that have them: never the best round."""
    series: dict[str, list[float]] = {}
    for evaluation in sorted(evaluations, key=lambda e: e.round):
        for name, value in evaluation.metrics.items():
            series.setdefault(name, []).append(value)
    numbers = {name: values[-1] for name, values in series.items()}
    numbers |= {f"{name}_mean_last{LAST}": _mean(values[-LAST:]) for name, values in series.items()}
    if rounds:
        numbers["seconds_per_round"] = _mean([r.seconds for r in rounds])
        travelled = traffic(rounds, evaluations).values()
        numbers["bytes_per_round"] = float(sum((up or 0) + (down or 0) for up, down in travelled)) / len(rounds)
    return numbers


def traffic(
    rounds: tuple[RoundRow, ...], evaluations: tuple[EvaluationRow, ...]
) -> dict[tuple[int, str], tuple[int | None, int | None]]:
    """Bytes up and down of each agent in each round, as they were without evaluation.

    An agent that was evaluated after round r has fetched the model that its task in round r + 1 needs, and does not
    fetch it again; so that download counts as the task's.
    """
    fetched: dict[tuple[int, str], int] = {}
    for evaluation in evaluations:
        for agent in evaluation.agents:
            key = (evaluation.round + 1, agent.agent)
            fetched[key] = max(fetched.get(key, 0), agent.bytes_down or 0)
    found: dict[tuple[int, str], tuple[int | None, int | None]] = {}
    for row in rounds:
        for task in row.agents:
            key = (row.round, task.agent)
            before = found.get(key, (None, fetched.get(key)))  # a round may have several phases
            found[key] = (_plus(before[0], task.bytes_up), _plus(before[1], task.bytes_down))
    return found


def _plus(a: int | None, b: int | None) -> int | None:
    return a if b is None else b if a is None else a + b


def _round(report: pb.RoundReport) -> RoundRow:
    return RoundRow(
        round=report.round,
        seconds=report.seconds,
        quorum_missed=report.quorum_missed,
        metrics=dict(report.metrics),
        agents=tuple(_agent(a) for a in report.agents),
    )


def _agent(report: pb.AgentReport) -> AgentRow:
    cost, known = report.report, report.HasField("transfer") and not report.transfer_missing
    return AgentRow(
        agent=report.agent,
        task=report.task,
        outcome=report.outcome,
        warmup=cost.warmup,
        shared=cost.shared,
        isolated=cost.isolated,
        phase=report.phase,
        reason=report.reason,
        n_samples=cost.n_samples,
        n_steps=cost.n_steps,
        train_s=cost.seconds.get("train", 0.0),
        wall_s=cost.wall_s,
        cpu_s=cost.cpu_s,
        seconds=dict(cost.seconds),
        rss_peak_delta_bytes=cost.rss_peak_delta_bytes,
        rss_peak_bytes=cost.rss_peak_bytes,
        vm_hwm_bytes=cost.vm_hwm_bytes,
        accelerator_peak_bytes=cost.accelerator_peak_bytes,
        data_bytes=cost.data_bytes,
        model_bytes=cost.model_bytes,
        bytes_up=report.transfer.bytes_up if known else None,
        bytes_down=report.transfer.bytes_down if known else None,
        loss=_finite(cost.loss) if cost.HasField("loss") else None,
        counts=dict(cost.counts),
        spans=tuple(
            SpanRow(s.name, s.seconds, s.cpu_s, s.rss_peak_delta_bytes, s.n_samples, s.data_bytes, s.model_bytes)
            for s in cost.spans
        ),
    )


def _evaluations(detail: pb.RunDetail) -> Iterable[EvaluationRow]:
    """Evaluation offers, and the moments that were taken inside training tasks, in the order of rounds."""
    found: list[tuple[int, str, list[pb.AgentReport], list[str]]] = [
        (e.round, e.moment, list(e.agents), list(e.missing)) for e in detail.evaluations
    ]
    for report in detail.rounds:
        for moment in ("start", "trained"):
            with_it = [a for a in report.agents if any(e.moment == moment for e in a.evaluations)]
            if with_it:
                found.append((report.round, moment, with_it, []))
    for number, moment, agents, missing in sorted(found, key=lambda row: row[0]):
        yield from _moment(number, moment, agents, missing)


def _moment(number: int, moment: str, agents: list[pb.AgentReport], missing: list[str]) -> Iterable[EvaluationRow]:
    grouped: dict[tuple[str, str], list[pb.AgentReport]] = {}
    for agent in agents:
        for place, found in _by_place(agent, moment).items():
            answer = pb.AgentReport(agent=agent.agent, task=agent.task, evaluations=found)
            if moment in ("merged", "finetuned") and agent.HasField("transfer"):
                answer.transfer.CopyFrom(agent.transfer)
            grouped.setdefault(place, []).append(answer)
    for (label_space, split), answers in grouped.items():
        extra: dict[str, Any] = {"seconds": sum(e.seconds for a in answers for e in a.evaluations)}
        if missing:
            extra["missing"] = missing
        if moment == "merged" and (counts := _counted(agents)):
            extra["counts"] = counts  # of all splits together
        rows = tuple(_evaluated(answer) for answer in answers)
        yield EvaluationRow(number, moment, label_space, split, rows, pooled(answers), extra)


def _counted(agents: Iterable[pb.AgentReport]) -> dict[str, float]:
    """What `predict` counted on all agents: experts evaluated, hits of each expert."""
    totals: dict[str, float] = {}
    for agent in agents:
        for name, n in agent.report.counts.items():
            totals[name] = totals.get(name, 0.0) + n
    return totals


def _by_place(agent: pb.AgentReport, moment: str) -> dict[tuple[str, str], list[pb.Evaluation]]:
    places: dict[tuple[str, str], list[pb.Evaluation]] = {}
    for e in agent.evaluations:
        if e.moment == moment:
            places.setdefault((e.label_space or "all", e.split or "test"), []).append(e)
    return places


def _evaluated(answer: pb.AgentReport) -> EvaluatedAgent:
    """The common model's reading stands in `n`, `correct` and `loss`; further readings among the metrics."""
    first = min(answer.evaluations, key=lambda e: (e.reading not in COMMON, e.reading != "personal"))
    means: dict[str, float] = {}
    for e in answer.evaluations:
        prefix = "" if e is first else f"{e.reading}_"
        means |= {prefix + name: total / e.n for name, total in e.sums.items() if e.n and math.isfinite(total)}
    correct = round(first.sums["accuracy"]) if "accuracy" in first.sums else None
    loss = means.pop("loss", None)
    transfer = answer.transfer if answer.HasField("transfer") else None
    return EvaluatedAgent(
        agent=answer.agent,
        task=answer.task,
        n=first.n,
        reading=first.reading,
        correct=correct,
        loss=loss,
        metrics=means,
        bytes_up=transfer.bytes_up if transfer else None,
        bytes_down=transfer.bytes_down if transfer else None,
    )


# ------------------------------------------------------------------ on disk


def save(results: Results, path: Path) -> None:
    """Write all of it at once: a reader finds the file as it was before, or as it is now."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(as_json(results), indent=1, allow_nan=False) + "\n"
    files.write_durably(path, [text.encode()])


def load(path: Path) -> Results:
    """Read a results.json; errors as of `read_json`."""
    return read_json(Results, path)


def read_json(kind: type[T], path: Path, unpack: Callable[[Any], Any] = lambda whole: whole) -> T:
    """A file that holds one of these dataclasses; `unpack` gives its JSON that form, or a ValueError.

    Raises:
        ConfigError: there is none, or it is not of this form; the text names what differs.
    """
    try:
        whole = unpack(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {kind.__name__.lower()} {path}: {error}", exit_code=EXIT_DATA) from error
    problems = Problems(str(path))
    found = read(kind, whole, problems) if isinstance(whole, dict) else None
    if found is None:
        told = "\n".join(problems.found[:5]) or f"{path}: expected an object, got {type(whole).__name__}"
        raise ConfigError(told, exit_code=EXIT_DATA)
    return found


def as_json(value: Any) -> Any:
    """Dataclasses, mappings and sequences as JSON's types; a field that is None is left out."""
    if is_dataclass(value):
        pairs = ((f.name, getattr(value, f.name)) for f in fields(value))
        return {name: as_json(inner) for name, inner in pairs if inner is not None}
    if isinstance(value, Mapping):
        return {key: as_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(inner) for inner in value]
    return value


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
