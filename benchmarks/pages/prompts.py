"""docs/experiments/prompts.md: learned prompts with class means beside their competitors, and what each costs."""

import json
from collections.abc import Iterator
from pathlib import Path

from benchmarks.condensed import Run
from benchmarks.pages._parts import NOT_RUN, Kept, Of, grid, kept, mean, percent, shown

INTRODUCTION = """# Prototype-based federated prompt learning

Park and Lee, Prototype-based Federated Prompt Learning for Personalization in Heterogeneous Environments, 2026, beside
zero-shot, PromptFL, FedPGP and FedOTP. The paper gives no settings; ours are in the run files, equal for all rows. The
encoder is a small one (MobileNetV2 and a text transformer of 5 million parameters, no CLIP), images are of 96 pixels
and few: order and gaps can be compared with the paper's, numbers cannot. Accuracy is the unweighted mean over agents,
each on test images that follow its own classes, over all classes, in the last round as the models stand after the
mean; "before" is after local training and before the mean. Never the best round. Several seeds: mean ± deviation.

    EDGEFED_DATA=FOLDER EDGEFED_MODELS=FOLDER fed-bench run prompts_caltech101 --out out/prompts_caltech101
    fed-bench condense out/prompts_caltech101 --out docs/experiments
    fed-bench page prompts
    fed-bench run prompts_caltech101 --set model.encoder=openai/clip-vit-base-patch16      with real CLIP, from the hub

Published: on Pets FedPGP 87.54, FedOTP 88.21, the paper's 89.78; on Caltech-101 90.80, 91.17, 91.36.
"""
DATA = (
    ("prompts_caltech101", "Caltech-101, first 30 classes, 16 images a class"),
    ("prompts_pets", "Oxford Pets, 37 classes, 6 images a class"),
    ("prompts_clip_full", "Caltech-101, CLIP ViT-B/16"),
)
HEADLINE = ("zero-shot", "PromptFL", "FedPGP", "FedOTP", "ours")
SPLITS = (("Dirichlet 0.1", ""), ("Dirichlet 0.5", ", Dirichlet 0.5"), ("disjoint", ", disjoint"))
SHARE = 0.95  # of the last round's accuracy


def write(folder: Path) -> list[Path]:
    text = "\n".join([INTRODUCTION, *_sections(folder)])
    path = folder / "prompts.md"
    path.write_text(text.rstrip() + "\n", encoding="utf-8")
    return [path]


def _sections(folder: Path) -> Iterator[str]:
    for name, title in DATA:
        found = kept(folder, name)
        yield f"## {title}\n"
        if not found.runs:
            yield f"`fed-bench run {name}`: {NOT_RUN}.\n"
            continue
        yield _splits(found)
        yield "Dirichlet 0.1, all rows; bytes are of one agent and round, prompts and class means together:\n"
        yield _rows(found)
        yield _order(found)
    yield from _features(folder)


def _features(folder: Path) -> Iterator[str]:
    """The paper's figure 2, with numbers: pictures of t-SNE alone prove nothing."""
    path = folder / "prompts_features.json"
    yield "## Features before and after training\n"
    if not path.exists():
        yield f"`fed-bench features prompts_caltech101 --out {folder}/prompts_features.png`: {NOT_RUN}.\n"
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    yield (
        f"All {found['n_images']} test images through the adapter of one agent, the one with the most classes; t-SNE"
        " with a fixed seed beside the silhouette (cosine) and the accuracy of the 5 nearest neighbours of the features"
        " themselves.\n\n![features](prompts_features.png)\n"
    )
    kinds = (("all test images", "static", "trained"), ("of the agent's classes", "own_static", "own_trained"))
    yield grid(
        ("", "silhouette before", "after", "nearest neighbours before, %", "after, %"),
        [
            (
                title,
                *(f"{found[k]['silhouette']:.3f}" for k in both),
                *(f"{100 * found[k]['neighbours']:.1f}" for k in both),
            )
            for title, *both in kinds
        ],
    )


def _splits(found: Kept) -> str:
    rows = [(label, *(percent(found.of(label + tail), accuracy) for _, tail in SPLITS)) for label in HEADLINE]
    return grid(("accuracy, %", *(name for name, _ in SPLITS)), rows)


def _rows(found: Kept) -> str:
    labels = [label for label in found.labels if not label.endswith(tuple(tail for _, tail in SPLITS if tail))]
    titles = (
        "row",
        "accuracy, %",
        "mean of last 5",
        "before, %",
        "nearest mean, %",
        "rounds to 95 %",
        "kB up",
        "kB down",
    )
    table = []
    for label in labels:
        runs = found.of(label)
        near = mean(runs, of("nearest_accuracy"))
        table.append(
            (
                label,
                percent(runs, accuracy),
                percent(runs, last_five),
                percent(runs, before),
                "" if near is None else shown(near, 100.0),
                shown(mean(runs, rounds_to), digits=1),
                *(shown(mean(runs, cost(name, 1e3)), digits=1) for name in ("bytes_up", "bytes_down")),
            )
        )
    return grid(titles, table)


def of(name: str) -> Of:
    """A metric of the last evaluation."""

    def last(run: Run) -> float | None:
        return run.measured[-1].metrics.get(name) if run.measured else None

    return last


def cost(name: str, unit: float) -> Of:
    """Of one agent's task: see table.costs."""

    def of(run: Run) -> float | None:
        return run.costs[name] / unit if name in run.costs else None

    return of


accuracy = of("personal_accuracy")


def last_five(run: Run) -> float | None:
    values = [m.metrics["personal_accuracy"] for m in run.measured if "personal_accuracy" in m.metrics][-5:]
    return sum(values) / len(values) if values else None


def before(run: Run) -> float | None:
    return run.rounds[-1].metrics.get("personal_accuracy_trained") if run.rounds else None


def rounds_to(run: Run) -> float | None:
    """The first round from which accuracy stays above that share of the last round's."""
    values = [m.metrics.get("personal_accuracy", 0.0) for m in run.measured]
    if not values:
        return None
    low = [i for i, value in enumerate(values) if value < SHARE * values[-1]]
    return float(run.measured[low[-1] + 1].round if low else run.measured[0].round)


def _order(found: Kept) -> str:
    """The paper's claim, as it stands here."""
    means = {label: value[0] for label in HEADLINE if (value := mean(found.of(label), accuracy)) is not None}
    if not {"FedPGP", "FedOTP", "ours"} <= set(means):
        return f"The paper's order (ours, FedOTP, FedPGP): {NOT_RUN}.\n"
    ranked = sorted(("ours", "FedOTP", "FedPGP"), key=lambda label: -means[label])
    same = "as in the paper" if ranked == ["ours", "FedOTP", "FedPGP"] else "not the paper's"
    figures = ", ".join(f"{label} {100 * means[label]:.2f}" for label in ranked)
    return f"The order at Dirichlet 0.1 is {figures}: {same} (ours, FedOTP, FedPGP).\n"
