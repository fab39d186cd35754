"""docs/experiments/prompts.md: learned prompts with class means beside their competitors, and what each costs."""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.pages import _prompts_costs as costs
from benchmarks.pages import _prompts_details as details
from benchmarks.pages import _prompts_pictures as pictures
from benchmarks.pages._parts import NOT_RUN, Kept, grid, kept, mean, percent, shown
from benchmarks.pages._prompts_measures import (
    HEADLINE,
    OWN,
    SPLITS,
    VARIANTS,
    accuracy,
    before,
    cost,
    last_five,
    of,
    rounds_to,
)

INTRODUCTION = """# Prototype-based federated prompt learning

Park and Lee, Prototype-based Federated Prompt Learning for Personalization in Heterogeneous Environments, 2026, beside
zero-shot, PromptFL, FedPGP and FedOTP. The paper gives no settings; ours are in the run files, equal for all rows. The
encoder is a small one (MobileNetV2 and a text transformer of 5 million parameters, no CLIP), images are of 96 pixels
and few: order and gaps can be compared with the paper's, numbers cannot. Accuracy is the unweighted mean over agents,
each on test images that follow its own classes, over all classes, in the last round as the models stand after the
mean; "before" is after local training and before the mean. Never the best round. Several seeds: mean ± deviation.
Written by `fed-bench page prompts` from the JSON beside it; "not run" stands where a run is missing.

    export EDGEFED_DATA=FOLDER EDGEFED_MODELS=FOLDER
    fed-bench run prompts_caltech101 --out out/prompts_caltech101      goes on where it stopped; prompts_pets likewise
    fed-bench condense out/prompts_caltech101 --out docs/experiments
    fed-bench features prompts_caltech101 --out docs/experiments/prompts_features.png
    python -m benchmarks.prompt_costs                time and memory with and without cache, ONNX tower, cut texts
    python -m benchmarks.prototype_leaks             what class means tell of images
    python -m benchmarks.prototype_cuts              class means in fewer bytes
    fed-bench page prompts
    fed-bench run prompts_caltech101 --set model.encoder=openai/clip-vit-base-patch16      with real CLIP, from the hub
"""
DATA = (
    ("prompts_caltech101", "Caltech-101, first 30 classes, 16 images a class"),
    ("prompts_pets", "Oxford Pets, 37 classes, 6 images a class"),
    ("prompts_clip_full", "Caltech-101, CLIP ViT-B/16"),
)
PUBLISHED = {
    "prompts_caltech101": {"FedPGP": "90.80", "FedOTP": "91.17", "ours": "91.36"},
    "prompts_pets": {"FedPGP": "87.54", "FedOTP": "88.21", "ours": "89.78"},
    "prompts_clip_full": {"FedPGP": "90.80", "FedOTP": "91.17", "ours": "91.36"},
}
SHOTS = {"prompts_caltech101": (1, 2, 4, 8, 16), "prompts_pets": (1, 3, 6), "prompts_clip_full": (1, 2, 4, 8, 16)}
README = {5: 52.5, 10: 55.3, 20: 59.4, 30: 61.0}  # of the encoder: central CoOp by epoch, per cent


def write(folder: Path) -> list[Path]:
    drawn = [
        path
        for name, title in DATA
        if (path := pictures.curves(kept(folder, name), title, folder / f"{name}.png")) is not None
    ]
    text = "\n".join([INTRODUCTION, *_sections(folder)])
    path = folder / "prompts.md"
    path.write_text(text.rstrip() + "\n", encoding="utf-8")
    return [path, *drawn]


def _sections(folder: Path) -> Iterator[str]:
    yield "## CoOp in one place\n"
    yield _central(kept(folder, "prompts_central"))
    for name, title in DATA:
        found = kept(folder, name)
        yield f"## {title}\n"
        if not found.runs:
            yield f"`fed-bench run {name}`: {NOT_RUN}.\n"
            continue
        yield _took(found)
        yield _splits(found, PUBLISHED[name])
        yield details.order(found)
        yield details.variants(found)
        yield details.gain(found)
        yield f"![accuracy over rounds]({name}.png)\n"
        yield (
            "Dirichlet 0.1, all rows; bytes are of one agent and round, prompts and class means together. Rounds to"
            " 95 %: from which on accuracy stays above 95 % of the last round's.\n"
        )
        yield _rows(found)
        yield from details.regulariser(found)
        yield details.shots(found, SHOTS[name])
        yield details.own_classes(found)
    yield from costs.sections(folder, kept(folder, "prompts_caltech101"))
    yield from _features(folder)


def _central(found: Kept) -> str:
    """Whether learned prompts work at all, by the curve that the encoder is known for."""
    runs = found.of("CoOp")
    if not runs:
        return f"`fed-bench run prompts_central`: {NOT_RUN}.\n"
    curve = {m.round: 100 * m.metrics["accuracy"] for m in runs[0].measured if "accuracy" in m.metrics}
    rows = [(f"{n}", f"{curve[n]:.1f}" if n in curve else NOT_RUN, f"{known:.1f}") for n, known in README.items()]
    far = [abs(curve[n] - known) for n, known in README.items() if n in curve]
    said = f"; at most {max(far):.1f} points apart" if far else ""
    text = f"One agent with all 100 classes of Caltech-101, 16 images each, beside the encoder's own README{said}.\n"
    return f"{text}\n{grid(('epochs', 'accuracy, %', 'README'), rows)}"


def _took(found: Kept) -> str:
    """What a newcomer has to wait for."""
    minutes = sum(run.seconds for run in found.runs) / 60
    cores = found.found.host.get("cores", "") if found.found else ""
    return f"{len(found.runs)} runs, {minutes:.0f} minutes in all on {cores} cores, which other work shared.\n"


def _splits(found: Kept, published: dict[str, str]) -> str:
    rows = [
        (label, *(percent(found.of(label + tail), accuracy) for _, tail in SPLITS), published.get(label, ""))
        for label in (*HEADLINE, *VARIANTS)
    ]
    return grid(("accuracy, %", *(name for name, _ in SPLITS), "published"), rows)


def _rows(found: Kept) -> str:
    """All of the first split; shots and label spaces have tables of their own."""
    others = (OWN, " shots", *(tail for _, tail in SPLITS if tail))
    titles = (
        "row",
        "seeds",
        "accuracy, %",
        "mean of last 5",
        "before, %",
        "nearest mean, %",
        "rounds to 95 %",
        "kB up",
        "kB down",
        "s a round",
    )
    table = []
    for label in (label for label in found.labels if not label.endswith(others)):
        runs = found.of(label)
        near = mean(runs, of("nearest_accuracy"))
        table.append(
            (
                label,
                str(len(runs)),
                percent(runs, accuracy),
                percent(runs, last_five),
                percent(runs, before),
                "" if near is None else shown(near, 100.0),
                shown(mean(runs, rounds_to), digits=1),
                *(shown(mean(runs, cost(name, 1e3)), digits=1) for name in ("bytes_up", "bytes_down")),
                shown(mean(runs, cost("seconds_per_round", 1)), digits=1),
            )
        )
    return grid(titles, table)


def _features(folder: Path) -> Iterator[str]:
    """The paper's figure 2, with numbers: pictures of t-SNE alone prove nothing."""
    found = costs.read(folder / "prompts_features.json")
    yield "## Features before and after training\n"
    if not found:
        yield f"`fed-bench features prompts_caltech101 --out {folder}/prompts_features.png`: {NOT_RUN}.\n"
        return
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
    own = found["own_trained"]["silhouette"] - found["own_static"]["silhouette"]
    near = found["own_trained"]["neighbours"] - found["own_static"]["neighbours"]
    if own <= 0 and near <= 0:
        yield (
            "By both numbers the classes lie no further apart after training than before, the agent's own neither: what"
            " agents gain in accuracy is not to be seen in the features alone.\n"
        )
