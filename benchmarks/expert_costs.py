"""What each expert of a tree cost on the agents and how often it is right, beside a flat net on the same data.

Seconds and memory are medians over the tasks that trained the expert, those of warming-up and shared processes left
out; data and model bytes are exact sums. One batch's activations are computed here, from the model alone.
"""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from benchmarks import taxonomies
from benchmarks.results import AgentRow, EvaluationRow, Results, RunRow
from benchmarks.table import number
from common import expert_schedule, experts, models, run_taxonomy, runfile, taxonomy
from common.method import ModelSpec
from common.run_sections import RunFile
from common.taxonomy import Taxonomy
from edge_client.data.named import open_named
from edge_client.prepare import model_input

PREFIX = expert_schedule.span("")


@dataclass(frozen=True)
class Cost:
    """Of one round of training, for one agent. `bytes_up` and `bytes_down` only where a task had no other expert.

    An expert has its place in the tree beside it, so that the tree can be drawn where the data set is not.
    """

    n_tasks: int
    n_samples: float
    seconds: float
    cpu_s: float
    rss_bytes: float
    data_bytes: float
    model_bytes: float
    activation_bytes: float | None = None
    bytes_up: float | None = None
    bytes_down: float | None = None
    accuracy: float | None = None
    parent: str = ""  # the node above, of an expert that is not the root's
    n_children: int = 0
    n_classes: int = 0  # under the node


MEASURES: Sequence[tuple[str, float, Callable[[Cost], float | None]]] = (
    ("ms", 1e-3, lambda c: c.seconds),
    ("data + model, MB", 1e6, lambda c: c.data_bytes + c.model_bytes),
    ("… + activations, MB", 1e6, lambda c: _sum(c.data_bytes + c.model_bytes, c.activation_bytes)),
    ("memory added (RSS), MB", 1e6, lambda c: c.rss_bytes),
    ("kB up", 1e3, lambda c: c.bytes_up),
    ("kB down", 1e3, lambda c: c.bytes_down),
)


def of_experts(run: RunRow) -> dict[str, Cost]:
    """node -> what its expert cost, breadth first; empty for a run without experts."""
    tasks: dict[str, list[AgentRow]] = {}
    for task in (a for r in run.rounds for a in r.agents if a.outcome == "merged"):
        for span in task.spans:
            if span.name.startswith(PREFIX):
                tasks.setdefault(span.name.removeprefix(PREFIX), []).append(task)
    if not tasks:
        return {}
    tree, hits = tree_of(run), accuracies(run)
    return {node: _expert(run, tree, node, tasks[node], hits.get(node)) for node in tree.children if node in tasks}


def of_flat(run: RunRow) -> Cost | None:
    """What a task of a run without experts cost; None when it has none that was merged."""
    tasks = [a for r in run.rounds for a in r.agents if a.outcome == "merged"]
    clean = _clean(tasks)
    if not clean:
        return None
    file = _file(run)
    spec = ModelSpec(file.model.name, file.model.options)
    return Cost(
        n_tasks=len(tasks),
        n_samples=statistics.fmean(t.n_samples for t in clean),
        seconds=statistics.median(t.train_s for t in clean),
        cpu_s=statistics.median(t.cpu_s for t in clean),
        rss_bytes=statistics.median(t.rss_peak_delta_bytes for t in clean),
        data_bytes=statistics.fmean(t.data_bytes for t in clean),
        model_bytes=statistics.fmean(t.model_bytes for t in clean),
        activation_bytes=activation_bytes(spec, len(_classes(file)), file.optimiser.batch),
        bytes_up=_mean(t.bytes_up for t in tasks),
        bytes_down=_mean(t.bytes_down for t in tasks),
    )


def accuracies(run: RunRow) -> dict[str, float]:
    """node -> share of the test samples under it that its expert sends to the right child, at the last evaluation."""
    counts: Mapping[str, float] = next(
        (e.extra["counts"] for e in reversed(run.evaluations) if "counts" in e.extra), {}
    )
    nodes = [name.removeprefix("inputs ") for name in counts if name.startswith("inputs ")]
    return {node: counts.get(f"right {node}", 0.0) / counts[f"inputs {node}"] for node in nodes}


def of_decoding(evaluation: EvaluationRow) -> dict[str, float]:
    """Inputs, and experts that each decoder evaluated for them; what was counted by node is in `accuracies`."""
    counts: Mapping[str, float] = evaluation.extra.get("counts", {})
    return {name: n for name, n in counts.items() if not name.startswith(("inputs ", "right "))}


def markdown(found: Results) -> str:
    """For each run of experts its dearest, cheapest and mean expert, in figures and in per cent of the flat net."""
    flat = next((c for r in found.runs if r.method == "flat_softmax" and (c := of_flat(r))), None)
    lines: list[str] = []
    seen: set[str] = set()
    for run in found.runs:
        costs = list(of_experts(run).values()) if run.label not in seen else []
        if costs:
            seen.add(run.label)
            lines += _rows(run.label, costs, flat)
    if not lines:
        return ""
    titles = ["experts", *(title for title, _, _ in MEASURES)]
    head = [f"| {' | '.join(titles)} |", f"|{'|'.join(['---', *(['---:'] * len(MEASURES))])}|"]
    if flat is not None:
        head.append(_line("flat net", [(measure(flat), None) for _, _, measure in MEASURES]))
    return "\n".join([*head, *lines]) + "\n"


def tree_of(run: RunRow) -> Taxonomy:
    file = taxonomies.inlined(_file(run))
    return taxonomy.build(run_taxonomy.edges(file) or (), _classes(file))


@lru_cache(maxsize=64)
def _activations(name: str, options: tuple[tuple[str, Any], ...], n_classes: int, batch: int) -> int:
    import torch

    from common import nets
    from common.models import options_of

    spec = ModelSpec(name, dict(options))
    net = nets.load(name).build(options_of(spec), n_classes)
    height, width, channels = model_input(spec) or (1, 1, 1)
    saved: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    owned = {p.untyped_storage().data_ptr() for p in net.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        net.classifier(net.features(torch.zeros(batch, channels, height, width)))
    return sum(size for place, size in saved.items() if place not in owned)


def activation_bytes(spec: ModelSpec, n_classes: int, batch: int) -> int | None:
    """What one batch keeps for the backward pass, parameters left out; None for models that are no torch net."""
    if models.is_dense(spec.name):
        return None
    return _activations(spec.name, tuple(sorted(spec.options.items())), n_classes, batch)


def _expert(run: RunRow, tree: Taxonomy, node: str, tasks: list[AgentRow], accuracy: float | None) -> Cost:
    clean = _clean(tasks)
    spans = [span for task in clean for span in task.spans if span.name == PREFIX + node]
    alone = [task for task in tasks if len(task.spans) == 1]
    file = _file(run)
    family = _family(file, tree)
    spec, n_classes = models.varied(ModelSpec(file.model.name, file.model.options), 0, family.variant(node))
    n_samples = statistics.fmean(s.n_samples for s in spans)
    batch = experts.batch_of(round(n_samples), file.optimiser.batch, int(file.method.get("least_steps", 1)))
    return Cost(
        n_tasks=len(tasks),
        n_samples=n_samples,
        seconds=statistics.median(s.seconds for s in spans),
        cpu_s=statistics.median(s.cpu_s for s in spans),
        rss_bytes=statistics.median(s.rss_peak_delta_bytes for s in spans),
        data_bytes=statistics.fmean(s.data_bytes for s in spans),
        model_bytes=statistics.fmean(s.model_bytes for s in spans),
        activation_bytes=None if family.on_trunk else activation_bytes(spec, n_classes, batch),
        bytes_up=_mean(t.bytes_up for t in alone),
        bytes_down=_mean(t.bytes_down for t in alone),
        accuracy=accuracy,
        parent=tree.parent.get(node, ""),
        n_children=len(tree.children[node]),
        n_classes=len(tree.below[node]),
    )


def _family(file: RunFile, tree: Taxonomy) -> experts.Family:
    given = file.method
    widths = experts.Widths(**given.get("widths", {}))
    return experts.Family(tree, given.get("targets", "children"), widths, given.get("trunk") == "shared_frozen")


def _rows(label: str, costs: list[Cost], flat: Cost | None) -> list[str]:
    lines = []
    for name, choose in (("max", max), ("min", min), ("mean", statistics.fmean)):
        cells = []
        for _, _, measure in MEASURES:
            values = [v for c in costs if (v := measure(c)) is not None]
            cells.append((choose(values) if values else None, None if flat is None else measure(flat)))
        lines.append(_line(f"{label}: {name} of {len(costs)}", cells))
    return lines


def _line(title: str, cells: Iterable[tuple[float | None, float | None]]) -> str:
    texts = []
    for (value, whole), (_, unit, _) in zip(cells, MEASURES, strict=True):
        share = f" ({100 * value / whole:.1f} %)" if value is not None and whole else ""
        texts.append(number(value, unit) + share)
    return f"| {' | '.join([title, *texts])} |"


def _clean(tasks: list[AgentRow]) -> list[AgentRow]:
    """Tasks that were alone in a warm process; all of them where there is no such task."""
    return [t for t in tasks if not t.warmup and not t.shared] or tasks


def _file(run: RunRow) -> RunFile:
    return runfile.from_table(run.config, f"results of {run.label}")


def _classes(file: RunFile) -> tuple[str, ...]:
    if file.data.classes is not None:
        return file.data.classes
    return tuple(name for name in open_named(file.data.name).classes if name not in file.data.without)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return statistics.fmean(known) if known else None


def _sum(a: float, b: float | None) -> float | None:
    return None if b is None else a + b
