"""A tree of experts as a picture, each expert's accuracy as its colour and its cost beside its name; and as text."""

import re
from collections.abc import Mapping
from pathlib import Path

from matplotlib import colormaps
from matplotlib import pyplot as plt
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from benchmarks import expert_costs, plot
from benchmarks.expert_costs import Cost
from benchmarks.results import Results
from benchmarks.table import number
from common import taxonomy
from common.taxonomy import Taxonomy

ROW_INCHES = 0.26
COLOURS = colormaps["RdYlGn"]


def results(found: Results, to: Path) -> list[Path]:
    """A picture and a text for the first run of each row that has experts; gives the files."""
    made: dict[str, Path] = {}
    texts: list[Path] = []
    for run in found.runs:
        costs = expert_costs.of_experts(run) if run.label not in made else {}
        if costs:
            name = re.sub(r"[^a-z0-9]+", "-", run.label.lower()).strip("-")
            figure = draw(costs, f"{found.experiment}: {run.label}")
            made[run.label] = plot.save(figure, to / f"tree-{name}.png")
            texts.append(to / f"tree-{name}.txt")
            texts[-1].write_text(text(expert_costs.tree_of(run), costs) + "\n", encoding="utf-8")
    return [*made.values(), *texts]


def text(tree: Taxonomy, costs: Mapping[str, Cost]) -> str:
    """The same for a terminal."""
    return taxonomy.drawing(tree, {node: note(cost) for node, cost in costs.items()})


def note(cost: Cost) -> str:
    right = "" if cost.accuracy is None else f"{100 * cost.accuracy:.0f} %, "
    return f"{right}{number(cost.seconds, 1e-3)} ms, {number(cost.data_bytes + cost.model_bytes, 1e6)} MB"


def draw(costs: Mapping[str, Cost], title: str) -> Figure:
    """Experts that were trained, from left to right, a row each; classes are only counted."""
    order = _depth_first(costs)
    row = {node: -i for i, node in enumerate(order)}
    depth = {node: _depth(costs, node) for node in order}
    height = 1.2 + ROW_INCHES * len(order)
    figure, axes = plt.subplots(figsize=(9, height), layout="constrained")
    for node, above in ((n, costs[n].parent) for n in order if costs[n].parent in costs):
        corner = ([depth[above], depth[above], depth[node]], [row[above], row[node], row[node]])
        axes.plot(*corner, color="0.7", linewidth=0.8, zorder=1)
    for node in order:
        cost = costs[node]
        colour = "0.8" if cost.accuracy is None else COLOURS(cost.accuracy)
        axes.scatter([depth[node]], [row[node]], s=46, color=[colour], edgecolor="0.3", linewidth=0.6, zorder=2)
        said = f"{node}  ({cost.n_children} children, {cost.n_classes} classes)  {note(cost)}"
        axes.text(depth[node] + 0.08, row[node], said, va="center", fontsize=7)
    axes.set(title=title, xlim=(-0.2, max(depth.values()) + 2.5), ylim=(-len(order), 1))
    axes.axis("off")
    if any(cost.accuracy is not None for cost in costs.values()):
        bar = ScalarMappable(Normalize(0, 1), COLOURS)
        said = "accuracy on test samples under the node"
        figure.colorbar(bar, ax=axes, shrink=min(1.0, 3 / height), pad=0.01, label=said)
    return figure


def _depth(costs: Mapping[str, Cost], node: str) -> int:
    depth = 0
    while (node := costs[node].parent) in costs:
        depth += 1
    return depth


def _depth_first(costs: Mapping[str, Cost]) -> list[str]:
    """Below each node its own, in the order in which they are given."""
    order: list[str] = []
    open_nodes = [node for node in reversed(list(costs)) if costs[node].parent not in costs]
    while open_nodes:
        node = open_nodes.pop()
        order.append(node)
        open_nodes += [child for child in reversed(list(costs)) if costs[child].parent == node]
    return order
