"""A finished tree that grows by ten classes, beside training again; and a part of it alone on a device."""

from collections.abc import Iterable, Iterator

from benchmarks.condensed import Run
from benchmarks.expert_costs import Cost
from benchmarks.pages import _hmoe_costs as of_cost
from benchmarks.pages import _hmoe_scores as scores
from benchmarks.pages._parts import NOT_RUN, Kept, grid, percent, shown

BEFORE, AFTER, PART = "90 classes", "100 classes", "trees alone"
AGAIN = "experts, from their parents"


def sections(found: Kept, short: Kept) -> Iterator[str]:
    stages = {run.stage: run for run in found.runs}
    if not {BEFORE, AFTER} <= set(stages):
        yield f"`fed-bench run hmoe_cifar100_growth`: {NOT_RUN}.\n"
        return
    again = [run for run in short.of(AGAIN) if run.seed == stages[AFTER].seed]
    rows = [
        _row("trained on 90 classes", [stages[BEFORE]]),
        _row("grown to 100", [stages[AFTER]]),
        _row("trained again on 100", again),
    ]
    titles = ["", "F1 greedy, %", "F1 product, %", "accuracy, %", "experts trained", "rounds", "device time, CPU s"]
    yield grid([*titles, "bytes of experts, KiB an agent, up"], rows)
    yield _saving(stages[AFTER], again)
    yield from _part(stages, PART)


def _row(title: str, runs: list[Run]) -> list[str]:
    figures = [percent(runs, scores.metric(n)) for n in ("information_f1", "product_information_f1", "accuracy")]
    if not runs:
        return [title, *figures, *[NOT_RUN] * 4]
    run = runs[0]
    spent = of_cost.device_s(run)
    sent = uploaded(run) / of_cost.KIB
    counts = [str(len(run.experts)), str(len(run.rounds)), "" if spent is None else f"{spent:.0f}", f"{sent:.0f}"]
    return [title, *figures, *counts]


def uploaded(run: Run) -> float:
    """Bytes of experts that an agent has sent, of those that have trained, as float32."""
    n_agents = int(run.config.get("data", {}).get("n_agents", 1))
    return sum(4 * of_cost.parameters(run, c.model_bytes) * c.n_tasks / n_agents for c in run.experts.values())


def _saving(grown: Run, again: list[Run]) -> str:
    if not again:
        return f"Beside training again: {NOT_RUN}.\n"
    part = of_cost.share(of_cost.device_s(grown), of_cost.device_s(again[0]))
    less = (scores.f1_of(grown) or 0.0) - (scores.f1_of(again[0]) or 0.0)
    cost = "" if part is None else f"costs {100 * part:.0f} % of the device time of training again, and "
    return f"Growing {cost}its F1 by the best decoder differs by {100 * less:+.2f} points.\n"


def _part(stages: dict[str, Run], name: str) -> Iterator[str]:
    if name not in stages or not stages[name].experts:
        yield f"A part of the tree on a device: {NOT_RUN}.\n"
        return

    def size(experts: Iterable[Cost]) -> float:
        """As float32, without gradients and moments."""
        return sum(4 * of_cost.parameters(part, cost.model_bytes) for cost in experts)

    part, whole = stages[name], {**stages[BEFORE].experts, **stages[AFTER].experts}
    mine, all_of_them = size(part.experts.values()), size(whole.values())
    n_classes = sum(cost.n_classes for cost in part.experts.values() if not cost.parent)
    f1 = shown(None if (v := scores.f1_of(part)) is None else (v, None), 100.0)
    yield (
        f"Only the branch on a device, `{', '.join(part.experts)}`: {len(part.experts)} of {len(whole)} experts,"
        f" {mine / of_cost.KIB:.0f} of {all_of_them / of_cost.KIB:.0f} KiB ({100 * mine / all_of_them:.1f} %),"
        f" F1 {f1} % among its {n_classes} classes, without any training.\n"
    )
    node = next(iter(part.experts))
    inside, alone = stages[AFTER].experts.get(node), part.experts[node]
    if inside is not None and inside.accuracy is not None and alone.accuracy is not None:
        yield (
            f"Within the whole tree the same expert sends {100 * inside.accuracy:.2f} % of its images to the right"
            f" class, alone {100 * alone.accuracy:.2f} %.\n"
        )
