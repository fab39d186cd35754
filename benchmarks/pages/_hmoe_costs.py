"""What experts cost, of condensed runs: the dearest, the cheapest and the mean one, in per cent of a flat net."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from benchmarks.condensed import Run
from benchmarks.expert_costs import Cost
from benchmarks.pages._parts import NOT_RUN, Kept, grid
from benchmarks.table import number

MIB = 2**20
KIB = 2**10
FLAT = "flat_softmax"
Measure = Callable[[Cost], float | None]


def data_model(cost: Cost) -> float:
    return cost.data_bytes + cost.model_bytes


def with_activations(cost: Cost) -> float | None:
    return None if cost.activation_bytes is None else data_model(cost) + cost.activation_bytes


COLUMNS: Sequence[tuple[str, float, Measure]] = (
    ("ms", 1e-3, lambda c: c.seconds),
    ("CPU ms", 1e-3, lambda c: c.cpu_s),
    ("data + model, MiB", MIB, data_model),
    ("… + activations, MiB", MIB, with_activations),
    ("RSS added, MiB", MIB, lambda c: c.rss_bytes),
    ("KiB up", KIB, lambda c: c.bytes_up),
    ("KiB down", KIB, lambda c: c.bytes_down),
)


def flats(found: Kept) -> list[str]:
    """Labels of the flat nets, the largest first; of one size in the order of the run file."""
    size = {label: run.flat.model_bytes for label in found.labels if (run := found.of(label)[0]).flat is not None}
    return sorted(size, key=lambda label: -size[label])


def reference(found: Kept) -> str | None:
    """The flat net that experts are measured against: the largest that was run."""
    return next(iter(flats(found)), None)


def own_size(found: Kept) -> str | None:
    """The flat net of the experts' own size, where it is another."""
    labels = flats(found)
    return labels[-1] if len(labels) > 1 else None


def parameters(run: Run, model_bytes: float) -> float:
    """Numbers of a model, from what training it takes: float32, with its gradient and the optimiser's moments."""
    optimiser: Mapping[str, Any] = run.config.get("optimiser", {})
    moments = 2 if optimiser.get("name") == "adamw" else int(optimiser.get("momentum", 0) > 0)
    return model_bytes / (4 * (2 + moments))


def all_parameters(run: Run) -> float | None:
    costs = list(run.experts.values()) or ([run.flat] if run.flat else [])
    return parameters(run, sum(cost.model_bytes for cost in costs)) if costs else None


def device_s(run: Run) -> float | None:
    """CPU seconds of training on all agents together, in the whole run."""
    known = [r.cpu_s for r in run.rounds if r.cpu_s is not None]
    return sum(known) if known else None


def over(runs: Iterable[Run], measure: Measure, choose: Callable[[list[float]], float]) -> float | None:
    """Of a run's experts the largest, smallest or mean; the mean of that over seeds."""
    found = [[v for cost in run.experts.values() if (v := measure(cost)) is not None] for run in runs]
    values = [choose(each) for each in found if each]
    return statistics.fmean(values) if values else None


def of_flat(runs: Iterable[Run], measure: Measure) -> float | None:
    values = [v for run in runs if run.flat is not None and (v := measure(run.flat)) is not None]
    return statistics.fmean(values) if values else None


def share(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole


def cell(value: float | None, unit: float, whole: float | None = None) -> str:
    if value is None:
        return ""
    part = share(value, whole)
    return number(value, unit) + ("" if part is None else f" ({100 * part:.1f} %)")


def costs(found: Kept, label: str) -> str:
    """Rows of flat nets, and of one row's experts."""
    runs, flat = found.of(label), reference(found)
    if not runs or not runs[0].experts:
        return f"Costs of `{label}`: {NOT_RUN}.\n"
    whole = {title: of_flat(found.of(flat), m) if flat else None for title, _, m in COLUMNS}
    lines = []
    for name in flats(found):
        cells = [cell(of_flat(found.of(name), m), u, None if name == flat else whole[t]) for t, u, m in COLUMNS]
        lines.append([name, *cells])
    n = len(runs[0].experts)
    kinds: Sequence[tuple[str, Callable[[list[float]], float]]] = (
        ("max", max),
        ("min", min),
        ("mean", statistics.fmean),
    )
    for title, choose in kinds:
        cells = [cell(over(runs, m, choose), u, whole[t]) for t, u, m in COLUMNS]
        lines.append([f"{label}, {title} of {n}", *cells])
    return grid(["of one agent's round", *(title for title, _, _ in COLUMNS)], lines)
