"""What the experts' costs and scores were to be, and whether they are: every sentence from the runs."""

from collections.abc import Callable, Iterator, Sequence

from benchmarks.condensed import Run
from benchmarks.expert_costs import Cost
from benchmarks.pages import _hmoe_costs as of_cost
from benchmarks.pages import _hmoe_scores as scores
from benchmarks.pages._hmoe_published import DataSet, Published
from benchmarks.pages._parts import NOT_RUN, Kept, mean

MEASURES: Sequence[tuple[str, Callable[[Cost], float], Callable[[Published], float]]] = (
    ("wall time", lambda cost: cost.seconds, lambda paper: paper.ms),
    ("CPU time", lambda cost: cost.cpu_s, lambda paper: paper.ms),
    ("data + model", of_cost.data_model, lambda paper: paper.mib),
)


def costs(found: Kept, label: str, published: DataSet, *, flat: str | None = None, times: bool = True) -> Iterator[str]:
    """Time and memory of the dearest and the cheapest expert, in per cent of a flat net, else the largest."""
    flat = flat or of_cost.reference(found)
    runs = found.of(label)
    if flat is None or not runs:
        yield f"- Costs of `{label}`: {NOT_RUN}.\n"
        return
    for title, measure, of in MEASURES if times else MEASURES[-1:]:
        for name, choose, row in (("most", max, published.largest), ("least", min, published.smallest)):
            value = of_cost.share(of_cost.over(runs, measure, choose), of_cost.of_flat(found.of(flat), measure))
            limit = of(row) / of(published.flat)
            yield _line(f"{title}, {name} of all experts, against `{flat}`", value, limit)


def f1(found: Kept, label: str) -> Iterator[str]:
    """The experts' best decoder beside the flat nets."""
    runs, spent = found.of(label), mean(found.of(label), of_cost.device_s)
    yield from _f1(found, label, runs, spent[0] if spent else None)


def f1_of_stages(found: Kept, staged: Kept) -> Iterator[str]:
    """The same for an experiment of stages, whose last has the scores and all of which took device time."""
    for label in staged.labels:
        runs = staged.of(label)
        scored = [run for run in runs if run.stage == runs[-1].stage]
        spent = [of_cost.device_s(run) for run in runs]
        known = [s for s in spent if s is not None]
        yield from _f1(found, label, scored, sum(known) / len(scored) if len(known) == len(spent) else None)


def _f1(found: Kept, label: str, runs: Sequence[Run], spent_s: float | None) -> Iterator[str]:
    decoder, mine = scores.best(runs), scores.best_f1(runs)
    if decoder is None or mine is None:
        yield f"- F1 of `{label}`: {NOT_RUN}.\n"
        return
    took = "" if spent_s is None else f" after {spent_s:.0f} CPU s on the devices"
    said = f"F1 of `{label}` by {decoder[0]}, {100 * mine[0]:.2f} %{took}"
    equal = scores.equal_time(found, spent_s)
    if equal is None:
        yield f"- {said}, beside the flat net at the same device time: {NOT_RUN}.\n"
    else:
        yield _beside(said, mine[0], equal[1], f"the larger flat net within the same device time ({equal[0]})")
    for name, what in ((of_cost.reference(found), "the larger"), (of_cost.own_size(found), "one of the experts' size")):
        other = mean(found.of(name), scores.metric(scores.LEAF)) if name else None
        if other is not None:
            yield _beside(said, mine[0], other[0], f"the flat net at its end, {what} (`{name}`)")


def _line(what: str, value: float | None, limit: float) -> str:
    if value is None:
        return f"- {what}: {NOT_RUN}.\n"
    verdict = "met" if round(1000 * value) <= round(1000 * limit) else "missed"
    return f"- {what}: {100 * value:.1f} %, to be at most the published {100 * limit:.1f} %: {verdict}.\n"


def _beside(said: str, mine: float, other: float, what: str) -> str:
    verdict = "at least as high" if mine >= other else "lower"
    return f"- {said}, beside {100 * other:.2f} % of {what}: {verdict} ({100 * (mine - other):+.2f} points).\n"
