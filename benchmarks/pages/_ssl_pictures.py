"""Convergence of fine-tuning: accuracy over rounds, a panel a task, a line an arm, the band over seeds."""

from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator

from benchmarks.pages._parts import Kept
from benchmarks.pages._ssl_figures import FEDERATED, LOCAL, NEAR, SCRATCH, TASKS, Arm, curve, goal, runs_of
from benchmarks.plot import save

LINES = (
    (Arm(SCRATCH, "full"), "-"),
    (Arm("federated, no SSL", "shared"), ":"),
    (Arm(LOCAL, "full"), "-"),
    (Arm(FEDERATED, "full"), "-"),
    (Arm(FEDERATED, "shared"), ":"),
)


def draw(found: Kept, folder: Path) -> list[Path]:
    drawn = [(arm, style) for arm, style in LINES if any(run.tasks for run in runs_of(found, arm))]
    return [_curves(found, drawn, folder / "ssl_curves.png")] if drawn else []


def _curves(found: Kept, drawn: list[tuple[Arm, str]], path: Path) -> Path:
    figure, panels = plt.subplots(1, len(TASKS), figsize=(9, 3.8), layout="constrained", squeeze=False)
    for axes, (task, (word, _)) in zip(panels[0], TASKS.items(), strict=True):
        for arm, style in drawn:
            seen = [one for run in runs_of(found, arm) if (one := curve(run, task))]
            rounds = sorted(set.intersection(*(set(one) for one in seen))) if seen else []
            if not rounds:
                continue
            values = np.array([[100 * one[number] for number in rounds] for one in seen])  # (seeds, rounds)
            shared = ", backbone averaged" if arm.stage == "shared" else ""
            (line,) = axes.plot(rounds, values.mean(0), style, label=f"{arm.label}{shared}")
            axes.fill_between(rounds, values.min(0), values.max(0), alpha=0.15, color=line.get_color())
        if (near := goal(found, task)) is not None:
            axes.axhline(100 * near, color="grey", linewidth=0.8, label=f"{100 * NEAR:.0f} % of from scratch")
        axes.set(title=word, xlabel="round of fine-tuning (2 epochs each)", ylabel="accuracy, %")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    panels[0, -1].legend(fontsize="x-small")
    return save(figure, path)
