"""Plots of results: accuracy over rounds, memory and bytes by row, and the class histogram of each agent."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.results import Results, RunRow
from benchmarks.table import MB, Row, number, pooled
from benchmarks.table import rows as table_rows
from common.errors import ConfigError

mpl.use("Agg")  # no display is needed, and none is opened
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

COLOURS = 256  # of a picture's palette


def results(found: Results, to: Path) -> list[Path]:
    """Write the plots of one results.json beside each other; gives the files."""
    to.mkdir(parents=True, exist_ok=True)
    made = [("accuracy.png", accuracy(found)), ("cost.png", cost(table_rows(found.runs), found.experiment))]
    return [_saved(figure, to / name) for name, figure in made]


def accuracy(found: Results) -> Figure:
    """Accuracy over rounds: a line a row, the band from the lowest to the highest seed."""
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for label, runs in _by_label(found.runs).items():
        for name, style in (("accuracy", "-"), ("accuracy_finetuned", "--")):
            series = [s for run in runs if (s := _series(run, name))]
            if series:
                _line(axes, series, f"{label}, fine-tuned" if style == "--" else label, style)
    axes.set(title=found.experiment, xlabel="round", ylabel="accuracy on test data, pooled over agents")
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small")
    return figure


def cost(table: Sequence[Row], title: str) -> Figure:
    """Memory above the task's start, and bytes both ways, each a bar a row."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 0.9 + 0.45 * max(len(table), 2)), layout="constrained")
    ran = [row for row in table if "bytes_up" in row or "rss_peak_delta_bytes" in row]
    places, labels = np.arange(len(ran)), [str(row["label"]) for row in ran]
    memory = [row.get("rss_peak_delta_bytes", 0.0) / MB for row in ran]
    _bars(left, places, memory, 0.6, "")
    up, down = ([row.get(name, 0.0) / 1e3 for row in ran] for name in ("bytes_up", "bytes_down"))
    _bars(right, places - 0.2, up, 0.38, "up")
    _bars(right, places + 0.2, down, 0.38, "down")
    left.set(title=title, xlabel="MB above the start of a task, median", yticks=places, yticklabels=labels)
    right.set(xlabel="kB of one task, mean", yticks=places, yticklabels=[])
    for axes in (left, right):
        axes.invert_yaxis()
        axes.margins(x=0.2)
    if ran:
        right.legend(fontsize="small")
    return figure


def partition(counts: NDArray[np.int64], classes: Sequence[str], title: str) -> Figure:
    """Class histogram of each agent: counts (n_agents, n_classes), one stacked bar an agent."""
    n_agents, n_classes = counts.shape
    figure, axes = plt.subplots(figsize=(min(4 + 0.12 * n_agents, 16), 4), layout="constrained")
    colours = plt.get_cmap("tab20" if n_classes > 10 else "tab10")
    left = np.zeros(n_agents)
    for c in range(n_classes):
        label = classes[c] if n_classes <= 20 else None
        axes.bar(np.arange(n_agents), counts[:, c], 0.85, bottom=left, color=colours(c % colours.N), label=label)
        left += counts[:, c]
    axes.set(title=title, xlabel="agent", ylabel="training samples", xlim=(-0.6, n_agents - 0.4))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if n_classes <= 20:
        axes.legend(fontsize="x-small", ncols=1 + n_classes // 11, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def save(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return _saved(figure, path)


def _saved(figure: Figure, path: Path) -> Path:
    try:
        figure.savefig(path, dpi=130)
        if path.suffix == ".png":  # a third of the bytes
            with Image.open(path) as drawn:
                drawn.convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE).save(path, optimize=True)
    except (OSError, ValueError) as error:  # a ValueError: no format of that name
        raise ConfigError(f"cannot write the picture {path}: {error}; choose another --out") from error
    finally:
        plt.close(figure)
    return path


def _by_label(runs: Sequence[RunRow]) -> dict[str, list[RunRow]]:
    labels: dict[str, list[RunRow]] = {}
    for run in runs:
        labels.setdefault(f"{run.label} / {run.stage}" if run.stage else run.label, []).append(run)
    return labels


def _series(run: RunRow, name: str) -> dict[int, float]:
    return {e.round: value for e in run.evaluations if (value := pooled(e.metrics, name)) is not None}


def _line(axes: Axes, series: list[dict[int, float]], label: str, style: str) -> None:
    rounds = sorted(set.intersection(*(set(s) for s in series)))
    values = np.array([[s[r] for r in rounds] for s in series])  # (seeds, rounds)
    (line,) = axes.plot(rounds, values.mean(axis=0), style, marker="." if len(rounds) < 30 else "", label=label)
    if len(series) > 1:
        axes.fill_between(rounds, values.min(axis=0), values.max(axis=0), alpha=0.15, color=line.get_color())


def _bars(axes: Axes, places: NDArray[Any], values: list[float], height: float, label: str) -> None:
    bars = axes.barh(places, values, height, label=label)
    axes.bar_label(bars, [number(v, 1.0) for v in values], padding=3, fontsize="small")
