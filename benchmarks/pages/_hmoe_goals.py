"""What the experts' costs and scores were to be, and whether they are: every sentence from the runs."""

from collections.abc import Iterator

from benchmarks.pages import _hmoe_costs as of_cost
from benchmarks.pages import _hmoe_scores as scores
from benchmarks.pages._hmoe_published import DataSet
from benchmarks.pages._parts import NOT_RUN, Kept, mean


def costs(found: Kept, label: str, published: DataSet, *, flat: str | None = None, times: bool = True) -> Iterator[str]:
    """Time and memory of the dearest and the cheapest expert, in per cent of a flat net, else the largest."""
    flat = flat or of_cost.reference(found)
    runs = found.of(label)
    if flat is None or not runs:
        yield f"- Costs of `{label}`: {NOT_RUN}.\n"
        return
    measures = [("data + model", of_cost.data_model, lambda p: p.mib)]
    if times:
        measures = [
            ("wall time", lambda c: c.seconds, lambda p: p.ms),
            ("CPU time", lambda c: c.cpu_s, lambda p: p.ms),
            *measures,
        ]
    for title, measure, of in measures:
        for name, choose, row in (("most", max, published.largest), ("least", min, published.smallest)):
            value = of_cost.share(of_cost.over(runs, measure, choose), of_cost.of_flat(found.of(flat), measure))
            limit = of(row) / of(published.flat)
            yield _line(f"{title}, {name} of all experts, against `{flat}`", value, limit)


def f1(found: Kept, label: str) -> Iterator[str]:
    """The experts' best decoder beside the flat nets."""
    mine = mean(found.of(label), scores.best_f1)
    if mine is None:
        yield f"- F1 of `{label}`: {NOT_RUN}.\n"
        return
    decoder = scores.best(found.of(label)[0])
    said = f"F1 of `{label}` by {decoder[0] if decoder else ''}, {100 * mine[0]:.2f} %"
    equal = scores.equal_time(found, label)
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
