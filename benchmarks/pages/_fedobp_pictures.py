"""FedOBP's pictures: accuracy before training over rounds, and personal entries by tensor over rounds."""

from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator

from benchmarks.condensed import Run
from benchmarks.pages._parts import Kept, during
from benchmarks.plot import save

SMOOTH = 5  # rounds, centred


def draw(parity: Kept, short: Kept, folder: Path) -> list[Path]:
    drawn = []
    if parity.runs:
        drawn.append(curves(parity, folder / "fedobp_parity.png"))
    shown = [(f"100 agents, {label}", parity.of(label)[0]) for label in parity.labels if label.startswith("FedOBP")]
    shown += [(f"40 agents, {label}", short.of(label)[0]) for label in short.labels if label.startswith("FedOBP, q")]
    if shown:
        drawn.append(personal(shown, folder / "fedobp_personal.png"))
    return drawn


def curves(found: Kept, path: Path) -> Path:
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for label in found.labels:
        for i, run in enumerate(found.of(label)):
            pairs = [(r.round, v) for r in run.rounds if (v := during(r.metrics, "start")) is not None]
            if len(pairs) < SMOOTH:
                continue
            rounds, values = (np.array(column) for column in zip(*pairs, strict=True))
            smooth = np.convolve(values, np.full(SMOOTH, 1 / SMOOTH), mode="valid")
            middle = rounds[SMOOTH // 2 : SMOOTH // 2 + len(smooth)]
            first = axes.plot(middle, smooth, ":" if i else "-", label=f"{label}{', other orders' if i else ''}")
            axes.plot(rounds, values, ".", markersize=2, alpha=0.4, color=first[0].get_color())
    axes.set(xlabel="round", ylabel="accuracy of the participants before training", title="mean of 5 rounds")
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small")
    return save(figure, path)


def personal(shown: list[tuple[str, Run]], path: Path) -> Path:
    """Shares of the personal entries by tensor, stacked, a panel a run."""
    figure, panels = plt.subplots(
        len(shown), 1, figsize=(7, 1.0 + 1.9 * len(shown)), layout="constrained", sharex=True, squeeze=False
    )
    names = sorted({n for _, run in shown for r in run.rounds for n in r.counts if _is_tensor(n)})
    for axes, (title, run) in zip(panels[:, 0], shown, strict=True):
        rounds = [r for r in run.rounds if r.counts.get("personal")]
        shares = [[r.counts.get(name, 0.0) / r.counts["personal"] for r in rounds] for name in names]
        if rounds:
            labels = [name.removeprefix("personal ").removeprefix("base.") for name in names]
            axes.stackplot([r.round for r in rounds], shares, labels=labels)
        axes.set(title=title, ylabel="share", ylim=(0, 1))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[-1, 0].set_xlabel("round")
    panels[0, 0].legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))
    return save(figure, path)


def _is_tensor(name: str) -> bool:
    return name.startswith("personal ") and "(bytes)" not in name
