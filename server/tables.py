"""What people read: runs, rounds and agents as plain columns. And what machines read: messages as JSON values."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from google.protobuf.message import Message as Message

from common import pb

Json = Any  # what json.dumps takes
Field = Any  # a field's descriptor: its class depends on how protobuf was built


def columns(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows under their heads; numbers to the right."""
    texts = [[_text(cell) for cell in row] for row in rows]
    right = [all(isinstance(cell, int | float) or cell == "" for cell in column) for column in zip(*rows, strict=True)]
    widths = [max(map(len, column)) for column in zip(head, *texts, strict=True)]
    right = right or [False] * len(head)
    lines = [
        "  ".join(cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(row, widths, right, strict=True)).rstrip()
        for row in (list(head), *texts)
    ]
    return "\n".join(lines)


def of_runs(runs: Iterable[pb.RunSummary]) -> str:
    rows = [(r.run, r.method, r.status, f"{r.round}/{r.rounds}", _moment(r.created_at), r.reason) for r in runs]
    return columns(("run", "method", "status", "round", "created", "why"), rows)


def of_agents(agents: Iterable[pb.AgentSummary], now: float) -> str:
    rows = [
        (
            a.name,
            "online" if a.online else f"seen {_ago(now - a.last_seen_at)} ago",
            a.data.n_train or "",
            a.data.n_test or "",
            ",".join(a.tags),
            ",".join(a.learners),
            a.device.machine,
            a.working_on,
        )
        for a in agents
    ]
    return columns(("agent", "there", "train", "test", "tags", "learners", "machine", "working on"), rows)


def of_run(detail: pb.RunDetail) -> str:
    summary = detail.summary
    lines = [
        f"{summary.run}: {summary.method}, {summary.status}, round {summary.round} of {summary.rounds}"
        + (f" ({summary.reason})" if summary.reason else "")
    ]
    if summary.state_sha256:
        lines.append(f"state {summary.state_sha256}")
    if detail.rounds:
        lines += ["", "rounds; times in s, sizes in MB = 10^6 bytes, the largest of any agent unless it says sum"]
        lines.append(rounds_table(detail.rounds))
    if detail.evaluations:
        lines += ["", "evaluations", evaluations_table(detail.evaluations)]
    return "\n".join(lines)


def rounds_table(rounds: Sequence[pb.RoundReport]) -> str:
    names = sorted({name for report in rounds for name in report.metrics})
    head = (
        "round",
        "s",
        "agents",
        "train s",
        "cpu s",
        "peak +MB",
        "model MB",
        "up MB sum",
        "down MB sum",
        *names,
        "note",
    )
    return columns(head, [_round_row(report, names) for report in rounds])


def _round_row(report: pb.RoundReport, names: Sequence[str]) -> tuple[object, ...]:
    merged = [agent for agent in report.agents if agent.outcome == "merged"]
    measured = [agent for agent in merged if not (agent.report.warmup or agent.report.shared)] or merged
    notes = ["quorum missed"] if report.quorum_missed else []
    notes += [f"{a.agent} {a.outcome}" for a in report.agents if a.outcome not in ("merged", "")][:3]
    missing = sum(agent.transfer_missing for agent in merged)
    notes += [f"{missing} transfer reports missing"] if missing else []
    return (
        report.round,
        round(report.seconds, 3),
        f"{len(merged)}/{len(report.agents)}",
        _most(a.report.seconds.get("train", 0.0) for a in measured),
        _most(a.report.cpu_s for a in measured),
        _mb(_most(a.report.rss_peak_delta_bytes for a in measured)),
        _mb(_most(a.report.model_bytes for a in measured)),
        _mb(sum(a.transfer.bytes_up for a in merged)),
        _mb(sum(a.transfer.bytes_down for a in merged)),
        *(round(report.metrics[name], 4) if name in report.metrics else "" for name in names),
        "; ".join(notes),
    )


def of_round(report: pb.RoundReport) -> str:
    """What each agent's tasks of a round cost it."""
    head = (
        "agent",
        "phase",
        "outcome",
        "samples",
        "loss",
        "wall s",
        "train s",
        "cpu s",
        "peak +MB",
        "data MB",
        "model MB",
    )
    rows = [
        (
            agent.agent,
            agent.phase,
            agent.outcome,
            agent.report.n_samples,
            round(agent.report.loss, 4) if agent.report.HasField("loss") else "",
            round(agent.report.wall_s, 3),
            round(agent.report.seconds.get("train", 0.0), 3),
            round(agent.report.cpu_s, 3),
            _mb(agent.report.rss_peak_delta_bytes),
            _mb(agent.report.data_bytes),
            _mb(agent.report.model_bytes),
            "" if agent.transfer_missing else _mb(agent.transfer.bytes_up),
            "" if agent.transfer_missing else _mb(agent.transfer.bytes_down),
            "; ".join(_remarks(agent)),
        )
        for agent in report.agents
    ]
    return f"round {report.round}: {report.seconds:.3f} s\n" + columns((*head, "up MB", "down MB", "note"), rows)


def _remarks(agent: pb.AgentReport) -> list[str]:
    remarks = [agent.reason] if agent.reason else []
    remarks += ["warm-up"] if agent.report.warmup else []
    remarks += ["shared process: memory and CPU are not its own"] if agent.report.shared else []
    return remarks


def evaluations_table(evaluations: Sequence[pb.EvaluationReport]) -> str:
    names = sorted({name for report in evaluations for name in report.metrics})
    rows = [
        (
            report.round,
            report.moment,
            len(report.agents),
            len(report.missing),
            *(round(report.metrics[name], 4) if name in report.metrics else "" for name in names),
        )
        for report in evaluations
    ]
    return columns(("round", "when", "agents", "missing", *names), rows)


def of_event(event: pb.RunEvent) -> str:
    """One line, or none when there is nothing to say; below a round's, why agents are missing in it."""
    if event.note:
        return event.note
    if event.HasField("round"):
        merged = sum(agent.outcome == "merged" for agent in event.round.agents)
        missed = ", quorum missed" if event.round.quorum_missed else ""
        of = f" of {event.summary.rounds}" if event.summary.rounds else ""
        what = f"{merged}/{len(event.round.agents)} agents, {event.round.seconds:.2f} s{missed}"
        first = f"round {event.round.round}{of}: {what}{_metrics(event.round.metrics)}"
        return "\n".join([first, *(f"  {why}" for why in _why_missing(event.round))])
    if event.HasField("evaluation"):
        report = event.evaluation
        return f"round {report.round} {report.moment}: {len(report.agents)} agents{_metrics(report.metrics)}"
    if event.HasField("summary") and event.summary.status:
        return f"{event.summary.run}: {event.summary.status}"
    return ""


def _why_missing(report: pb.RoundReport) -> list[str]:
    """What failed, and where nothing was merged every reason: each once, the first three."""
    nothing = not any(agent.outcome == "merged" for agent in report.agents)
    told: dict[str, str] = {}
    for agent in report.agents:
        if agent.reason and (agent.outcome == "failed" or nothing):
            told.setdefault(agent.reason, f"{agent.agent} {agent.outcome}: {agent.reason}")
    return list(told.values())[:3]


def plain(message: Message) -> dict[str, Json]:
    """A message as JSON values: all fields by their names, enums by name, bytes in hex, 64-bit numbers as numbers."""
    return {
        field.name: _plain_field(message, field) for field in message.DESCRIPTOR.fields if _is_there(message, field)
    }


def _is_there(message: Message, field: Field) -> bool:
    return not field.has_presence or message.HasField(field.name)


def _plain_field(message: Message, field: Field) -> Json:
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        of = field.message_type.fields_by_name["value"]
        return {key: _plain_value(value[key], of) for key in sorted(value)}
    if field.is_repeated:
        return [_plain_value(item, field) for item in value]
    return _plain_value(value, field)


def _plain_value(value: Any, field: Field) -> Json:
    if field.message_type is not None:
        return plain(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return value if known is None else known.name
    return value.hex() if isinstance(value, bytes) else value


def _metrics(metrics: Mapping[str, float]) -> str:
    return "".join(f", {name} {metrics[name]:.4f}" for name in sorted(metrics))


def _most(values: Iterable[float]) -> float:
    return round(max(values, default=0.0), 3)


def _mb(n_bytes: float) -> float:
    return round(n_bytes / 1e6, 3)


def _text(cell: object) -> str:
    return f"{cell:g}" if isinstance(cell, float) else str(cell)


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M") if at else ""


def _ago(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
