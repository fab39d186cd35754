"""Learned prompts: accuracy of the methods over rounds, one plot a data set."""

import statistics
from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator

from benchmarks.condensed import Run
from benchmarks.pages._parts import Kept
from benchmarks.pages._prompts_measures import ALONE, HEADLINE, MEANS
from benchmarks.plot import save

LINES = (*HEADLINE, "local prompts", "FedProto on an adapter", ALONE, MEANS)


def curves(found: Kept, title: str, path: Path) -> Path | None:
    """Means over seeds; methods that the paper does not compare are dashed, what learns nothing is a level line."""
    shown = {label: curve for label in LINES if (curve := _mean_curve(found.of(label)))}
    if not shown:
        return None
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    last = max(number for curve in shown.values() for number in curve)
    for label, curve in shown.items():
        if len(curve) == 1:
            axes.axhline(100 * next(iter(curve.values())), linestyle=":", color="grey", label=label)
        else:
            style = "-" if label in HEADLINE else "--"
            axes.plot(list(curve), [100 * value for value in curve.values()], style, label=label)
    axes.set(title=title, xlabel="round", ylabel="accuracy, mean over agents and seeds, %", xlim=(1, max(2, last)))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return save(figure, path)


def _mean_curve(runs: list[Run]) -> dict[int, float]:
    values: dict[int, list[float]] = {}
    for run in runs:
        for m in run.measured:
            if "personal_accuracy" in m.metrics:
                values.setdefault(m.round, []).append(m.metrics["personal_accuracy"])
    return {number: statistics.fmean(some) for number, some in sorted(values.items())}
