"""docs/experiments/ssl.md: one self-supervised backbone for agents with different tasks, beside its controls."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.pages import _ssl_costs as costs
from benchmarks.pages import _ssl_pictures as pictures
from benchmarks.pages import _ssl_verdict as verdict
from benchmarks.pages._parts import NOT_RUN, Kept, grid, kept, mean, percent
from benchmarks.pages._ssl_figures import (
    FEDERATED,
    LOCAL,
    NEAR,
    RANDOM,
    SCRATCH,
    TASKS,
    Arm,
    accuracy,
    average,
    cells,
    curve,
    gap,
    goal,
    rounds_to,
    runs_of,
    told,
)

EXPERIMENT = "ssl_flowers_intel"
EPOCHS = 2  # in a round of fine-tuning
INTRODUCTION = """# Self-supervised pre-training for agents with different tasks

Two agents, flowers (102 classes) and scenes (6), pre-train one backbone with SimCLR on 75 % of their images, without
labels, and the server averages it; then each trains a head of its own on the other 25 %. Accuracy is of the 75 %, as in
the paper (Singh, Choi and Choi, Learning Unified and Robust Representations across Various Tasks within a Federated
Learning Environment; transductive), in the last round: never the best one. Written by `fed-bench page ssl` from the
JSON beside it; "not run" stands where a run is missing. Ours is a ResNet-10 of 0.31 million parameters at 64 pixels,
the paper's a ResNet-50: gaps can be compared, numbers cannot. What was cut to fit two cores is said in the run file,
benchmarks/experiments/ssl_flowers_intel.toml; ssl_flowers_intel_full.toml is at the paper's size, and was not run.

    export EDGEFED_DATA=FOLDER                 with flowers102_all, intel_scenes_all and caltech101
    fed-bench run ssl_flowers_intel --out out/ssl                 broken off, it goes on in the middle of a run
    fed-bench condense out/ssl --out docs/experiments
    fed-bench page ssl
"""
PAPER = (("paper: supervised, in one place", 29.926, 83.288), ("paper: federated, SSL backbone", 53.971, 88.219))
ARMS = (
    ("from scratch (the paper's CL)", "all", Arm(SCRATCH, "full")),
    ("federated, no SSL", "all, averaged", Arm("federated, no SSL", "shared")),
    (RANDOM, "head", Arm(RANDOM, "probe")),
    (LOCAL, "head", Arm(LOCAL, "probe")),
    (LOCAL, "head, last stage", Arm(LOCAL, "last")),
    (LOCAL, "all", Arm(LOCAL, "full")),
    (FEDERATED, "head", Arm(FEDERATED, "probe")),
    (f"{FEDERATED}, own statistics", "head", Arm(FEDERATED, "probe-bn")),
    (FEDERATED, "head, last stage", Arm(FEDERATED, "last")),
    (FEDERATED, "all", Arm(FEDERATED, "full")),
    (FEDERATED, "all, averaged", Arm(FEDERATED, "shared")),
    ("ImageNet weights (upper line)", "all", Arm("ImageNet weights", "full")),
)
VARIANTS = (
    ("each alone", Arm(LOCAL, "probe")),
    ("mean by images", Arm(FEDERATED, "probe")),
    ("mean by images, own statistics at the end", Arm(FEDERATED, "probe-bn")),
    ("batch norm stays local", Arm("federated SSL, batch norm local", "probe")),
    ("every agent alike", Arm("federated SSL, uniform", "probe")),
    ("L-DAWA", Arm("federated SSL, L-DAWA", "probe")),
    ("FedEMA's mixing", Arm("federated SSL, FedEMA mixing", "probe")),
    ("averaged after every epoch", Arm("federated SSL, averaged every epoch", "probe")),
    ("5 rounds together, then 3 alone", Arm("federated SSL, local finish", "probe-finish")),
)
CONVERGING = (Arm(SCRATCH, "full"), Arm("federated, no SSL", "shared"), Arm(LOCAL, "full"), Arm(FEDERATED, "full"))
TEN = ("from scratch", "local-only SSL", "federated by task", "federated over all")
JOINED = (
    ("random, frozen", RANDOM, "join-{}"),
    ("the flowers' own, frozen", LOCAL, "join-{}"),
    ("federated, frozen", FEDERATED, "join-{}"),
    ("none: from scratch", SCRATCH, "join-{}-full"),
    ("federated, all tuned", FEDERATED, "join-{}-full"),
)
WORDS = tuple(word for word, _ in TASKS.values())


def write(folder: Path) -> list[Path]:
    found = kept(folder, EXPERIMENT)
    drawn = pictures.draw(found, folder)
    path = folder / "ssl.md"
    path.write_text("\n".join([INTRODUCTION, *_sections(found, drawn)]).rstrip() + "\n", encoding="utf-8")
    return [path, *drawn]


def _sections(found: Kept, drawn: Sequence[Path]) -> Iterator[str]:
    yield "## The paper's table\n"
    yield _table(found)
    yield from verdict.paragraphs(found)
    yield "## Convergence\n"
    yield from _convergence(found, drawn)
    yield "## What helps federation\n"
    yield _variants(found)
    yield "## Five agents for each task\n"
    yield _ten(found)
    yield "## A third task joins\n"
    yield _joined(found)
    yield "## Images that no training saw\n"
    yield _inductive(found)
    yield "## Pre-training, watched\n"
    yield _watched(found)
    yield "## Cost\n"
    yield from costs.per_task(found)
    yield from costs.features(found)
    yield from costs.many_heads(found)


def _table(found: Kept) -> str:
    rows = [[name, "all", "", f"{a:.2f}", f"{b:.2f}", f"{(a + b) / 2:.2f}"] for name, a, b in PAPER]
    for title, tuned, arm in ARMS:
        runs = runs_of(found, arm)
        rows.append([title, tuned, str(len(runs)), *cells(runs)])
    return grid(["arm", "trained with labels", "seeds", *WORDS, "mean"], rows)


def _convergence(found: Kept, drawn: Sequence[Path]) -> Iterator[str]:
    for path in drawn:
        yield f"![accuracy over rounds of fine-tuning]({path.name})\n"
    yield (
        f"Rounds of fine-tuning ({EPOCHS} epochs each) until {100 * NEAR:.0f} % of what training from scratch ends at,"
        f" mean over seeds; pre-training is not counted.\n"
    )
    rows = [[arm.label, *(rounds_to(runs_of(found, arm), task, goal(found, task)) for task in TASKS)]
            for arm in CONVERGING]  # fmt: skip
    yield grid(["arm", *WORDS], rows)


def _variants(found: Kept) -> str:
    rows = []
    for title, arm in VARIANTS:
        against = [told(gap(found, arm, Arm(LOCAL, "probe"), task)) for task in TASKS]
        rows.append([title, *cells(runs_of(found, arm, 1)), *(["", ""] if arm.label == LOCAL else against)])
    note = (
        "Linear probe of the backbone, 16 epochs of pre-training in all of them; accuracies of seed 1. Gaps to each"
        " agent alone are paired by seed: with one seed, within a point is nothing. FedBN's layers and L-DAWA's angles"
        " are as in their papers; see common/methods/fedsimclr.py.\n"
    )
    table = grid(["how", *WORDS, "mean", *(f"{word}, to alone" for word in WORDS)], rows)
    return f"{note}\n{table}\n{_nearest(found)}"


def _nearest(found: Kept) -> str:
    """Which way of averaging comes nearest to not averaging, over both tasks."""
    means = {title: value for title, arm in VARIANTS if (value := mean(runs_of(found, arm, 1), average))}
    (alone, _), *others = VARIANTS
    if alone not in means or any(title not in means for title, _ in others):
        return f"Which of them helps most: {NOT_RUN} in full.\n"
    best = max((title for title, _ in others), key=lambda title: means[title][0])
    gap_ = 100 * (means[best][0] - means[alone][0])
    return f"Of all ways to average, the best is: {best}, {gap_:+.2f} points to each agent alone over both tasks.\n"


def _ten(found: Kept) -> str:
    rows = []
    for name in TEN:
        label = f"2 x 5 agents, {name}"
        head, full = (runs_of(found, Arm(label, stage)) for stage in ("probe", "full"))
        first = ["", ""] if name == "from scratch" else [percent(head, accuracy(task)) for task in TASKS]
        rows.append([name, *first, *(percent(full, accuracy(task)) for task in TASKS)])
    note = (
        "Ten agents, five with a fifth of the flowers each and five with a fifth of the scenes; pooled over an agent's"
        " own images. One seed.\n"
    )
    titles = ["backbone", *(f"{word}, head" for word in WORDS), *(f"{word}, all" for word in WORDS)]
    return f"{note}\n{grid(titles, rows)}"


def _joined(found: Kept) -> str:
    shots = (1, 5, 10)
    rows = []
    for title, label, stage in JOINED:
        runs = [runs_of(found, Arm(label, stage.format(k))) for k in shots]
        rows.append([title, str(max(map(len, runs))), *(percent(some, accuracy("")) for some in runs)])
    note = (
        "Caltech-101, whose images no pre-training saw, with so many labels a class. Accuracy on its own test images.\n"
    )
    return f"{note}\n{grid(['backbone', 'seeds', *(f'{k} a class' for k in shots)], rows)}"


def _inductive(found: Kept) -> str:
    rows = []
    for label, stage in (
        (SCRATCH, "full"),
        (LOCAL, "probe"),
        (LOCAL, "full"),
        (FEDERATED, "probe"),
        (FEDERATED, "full"),
    ):
        seen, unseen = (runs_of(found, Arm(f"{kind}{label}", stage), 1) for kind in ("", "inductive, "))
        tuned = "head" if stage == "probe" else "all"
        of_task = (percent(runs, accuracy(task)) for task in TASKS for runs in (seen, unseen))
        rows.append([label, tuned, *of_task])
    note = (
        "Seen: evaluation images are those of pre-training (75 %), as in the paper. Unseen: 60 % pre-train, 25 % train"
        " the head, 15 % only test. Seed 1.\n"
    )
    titles = ["arm", "trained", *(f"{word}, {kind}" for word in WORDS for kind in ("seen", "unseen"))]
    return f"{note}\n{grid(titles, rows)}"


def _watched(found: Kept) -> str:
    """kNN of the first and the last evaluation of pre-training."""
    rows = []
    for label in found.labels:
        for run in runs_of(found, Arm(label, "ssl"), 1):
            seen = [curve(run, task) for task in TASKS]
            if all(seen):
                rounds = (min(seen[0]), max(seen[0]))
                rows.append([label, f"{rounds[0]}, {rounds[1]}", *(_ends(one) for one in seen)])
    note = "Votes of the 20 nearest labelled images, no head trained, at the first and the last look; seed 1.\n"
    return f"{note}\n{grid(['row', 'rounds', *WORDS], rows) if rows else NOT_RUN + chr(10)}"


def _ends(one: dict[int, float]) -> str:
    return f"{100 * one[min(one)]:.1f}, {100 * one[max(one)]:.1f}"
