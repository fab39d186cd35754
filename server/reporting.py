"""Rounds and evaluations as reports: what became of each agent, and metrics pooled from counts and sums.

Names of metrics, for each metric that the run asks for: `accuracy` is of the common model (readings "model" and
"global"), pooled over all examples; `personal_accuracy` is of the agents' own models (reading "personal"), the
unweighted mean over agents, and `personal_accuracy_weighted` is pooled. A method with only one of the two kinds
answers for both means. Another reading R gives `R_accuracy`. Then come suffixes: label space ("_own"), split
("_holdout") and moment ("_finetuned", "_trained", "_start").
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping

from common import pb
from server.collecting import Answer
from server.fleet import Present

COMMON = ("model", "global")


def agent_report(
    key: pb.TaskKey,
    phase: str,
    answer: Answer,
    header: pb.RecordHeader | None,
    task: str,
    present: Present | None,
) -> pb.AgentReport:
    """`present`: the agent as it said hello; what its device is comes from there, not with every reply."""
    report = pb.AgentReport(
        agent=key.agent,
        phase=phase,
        step=key.step,
        outcome=answer.outcome,
        reason=answer.reason,
        transfer_missing=header is not None,  # until it comes
        task=task,
    )
    if header is not None:
        report.report.CopyFrom(header.report)
        if present is not None:
            report.report.device.CopyFrom(present.hello.device)
        report.evaluations.extend(header.evaluations)
    return report


def round_metrics(agents: Iterable[pb.AgentReport]) -> dict[str, float]:
    """What a round cost in bytes, the mean training loss per sample, and the moments taken inside its tasks."""
    agents = list(agents)
    numbers = pooled(agents)
    numbers["bytes_per_round"] = bytes_of(agents)
    trained = [a.report for a in agents if a.outcome == "merged" and a.report.HasField("loss")]
    merged = [report for report in trained if math.isfinite(report.loss)]
    if samples := sum(report.n_samples for report in merged):
        numbers["train_loss"] = sum(report.loss * report.n_samples for report in merged) / samples
    return numbers


def bytes_of(agents: Iterable[pb.AgentReport]) -> float:
    """Up and down, of the transfers that are known."""
    return float(sum(agent.transfer.bytes_up + agent.transfer.bytes_down for agent in agents))


def pooled(agents: Iterable[pb.AgentReport]) -> dict[str, float]:
    """Every metric of every moment; values that are not finite are left out."""
    grouped: dict[tuple[str, str, str], dict[str, list[pb.Evaluation]]] = defaultdict(lambda: defaultdict(list))
    for agent in agents:
        for evaluation in agent.evaluations:
            if evaluation.n:
                place = (evaluation.moment, evaluation.label_space, evaluation.split)
                grouped[place][evaluation.reading].append(evaluation)
    numbers: dict[str, float] = {}
    for (moment, label_space, split), readings in grouped.items():
        suffix = "" if label_space in ("", "all") else f"_{label_space}"
        suffix += "" if split in ("", "test") else f"_{split}"
        suffix += "" if moment == "merged" else f"_{moment}"
        alone = len({*readings} & {*COMMON, "personal"}) == 1
        for reading, evaluations in readings.items():
            for form, value in _values(reading, evaluations, alone=alone):
                if math.isfinite(value):
                    numbers[form + suffix] = value
    return numbers


def evaluation_reports(
    round_number: int, moments: Iterable[str], agents: Iterable[pb.AgentReport], missing: Iterable[str]
) -> list[pb.EvaluationReport]:
    """One report for each moment; an agent's cost and transfer stand in all of them, its evaluations in their own."""
    agents, missing = list(agents), sorted(missing)
    reports = []
    for moment in moments:
        report = pb.EvaluationReport(round=round_number, moment=moment, missing=missing)
        for agent in agents:
            mine = [e for e in agent.evaluations if e.moment == moment]
            copied = report.agents.add()
            copied.CopyFrom(agent)
            del copied.evaluations[:]
            copied.evaluations.extend(mine)
        report.metrics.update(pooled(report.agents))
        reports.append(report)
    return reports


def _values(reading: str, evaluations: list[pb.Evaluation], *, alone: bool) -> Iterable[tuple[str, float]]:
    for name in sorted({name for e in evaluations for name in e.sums}):
        means = _means(name, evaluations)
        if reading == "personal":
            yield f"personal_{name}", means["mean"]
            yield f"personal_{name}_weighted", means["pooled"]
        elif reading in COMMON:
            yield name, means["pooled"]
            if alone:
                yield f"personal_{name}", means["mean"]
        else:
            yield f"{reading}_{name}", means["pooled"]


def _means(name: str, evaluations: list[pb.Evaluation]) -> Mapping[str, float]:
    has = [(e.sums[name], e.n) for e in evaluations if name in e.sums]
    return {
        "pooled": sum(total for total, _ in has) / sum(n for _, n in has),
        "mean": sum(total / n for total, n in has) / len(has),
    }
