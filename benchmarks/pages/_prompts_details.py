"""Learned prompts, what rows say of each other: the order, where the gain is from, whether the regulariser helps."""

from collections.abc import Iterator, Sequence

from benchmarks.pages._parts import NOT_RUN, Kept, grid, mean, percent, shown
from benchmarks.pages._prompts_measures import (
    ALONE,
    BARE,
    BLENDED,
    HEADLINE,
    HELD_OUT,
    MEANS,
    NO_MEANS,
    OWN,
    SPLITS,
    accuracy,
    of,
    of_seeds,
    own_accuracy,
    points,
)

PAPERS = ("ours", "FedOTP", "FedPGP")  # from best to worst
AS_PUBLISHED, OTHERWISE = "as in the paper", "not the paper's"
CLEAR = 1.0  # point


def order(found: Kept) -> str:
    """The paper's claim, as it stands here, split by split."""
    said = []
    for split, tail in SPLITS:
        means = {name: value[0] for name in PAPERS if (value := mean(found.of(name + tail), accuracy)) is not None}
        if len(means) < len(PAPERS):
            said.append(f"{split}: {NOT_RUN}")
            continue
        ranked = sorted(PAPERS, key=lambda name: -means[name])
        figures = ", ".join(f"{name} {100 * means[name]:.2f}" for name in ranked)
        said.append(f"{split}: {figures}, {AS_PUBLISHED if ranked == list(PAPERS) else OTHERWISE}")
    return f"The paper's order is {', '.join(PAPERS)}. {'; '.join(said)}.\n"


def gain(found: Kept) -> str:
    """Step by step from zero-shot to the last variant."""
    steps = (
        ("a common prompt (PromptFL)", "PromptFL", "zero-shot"),
        ("an adapter of the agent's own beside it", NO_MEANS, "PromptFL"),
        ("class means as a regulariser (ours)", "ours", NO_MEANS),
        ("class means in the prediction as well, half and half", BLENDED, "ours"),
        ("that without the regulariser", BARE, BLENDED),
        ("and without a learned prompt", MEANS, BARE),
        ("or ours with that share chosen on held-out data, a fifth of the training data, over ours", HELD_OUT, "ours"),
    )
    told = [f"{title} {signed(points(found, label, over))}" for title, label, over in steps]
    text = f"Where the gain comes from, in points at Dirichlet 0.1, each over the one before: {'; '.join(told)}."
    means = percent(found.of("FedProto on an adapter")[:1], accuracy)
    return f"{text} FedProto's means with an adapter, no prompt and no texts in the prediction: {means}.\n"


def variants(found: Kept) -> str:
    """What an adapter does without any federation, and what class means add to it."""
    told, behind = [], []
    for split, tail in SPLITS:
        alone, means = points(found, ALONE + tail, "ours" + tail), points(found, MEANS + tail, "ours" + tail)
        told.append(f"{split}: {signed(alone)} and {signed(means)}")
        if alone is not None and alone > 0:
            behind.append(split)
    text = (
        "The lower three rows are not the paper's: each agent trains an adapter before the encoder's own texts, without"
        " a learned prompt or a regulariser; at most class means travel, and are a classifier beside the texts."
        f" Points over ours of an adapter that hears of nobody, and with class means: {'; '.join(told)}."
    )
    if behind:
        text += f" So the paper's method is behind what needs no federation on these splits: {', '.join(behind)}."
    best = [points(found, MEANS + tail, ALONE + tail) for _, tail in SPLITS]
    if all(p is not None for p in best):
        text += f" Class means are worth {', '.join(signed(p) for p in best)} points to that adapter."
    return text + "\n"


def signed(value: float | None) -> str:
    return NOT_RUN if value is None else f"{value:+.1f}"


def regulariser(found: Kept) -> Iterator[str]:
    """Whether L_reg helps, with the classes shared and with one owner each."""
    kinds = (
        (NO_MEANS, "no means"),
        ("ours, lambda 0", "lambda 0"),
        ("ours", "lambda 1"),
        ("ours, lambda 10", "lambda 10"),
    )
    rows = []
    for split, tail in SPLITS:
        runs = of_seeds(found, [label + tail for label, _ in kinds])
        told = [percent(runs[label + tail], accuracy) if _asked(label, tail) else "" for label, _ in kinds]
        near = percent(of_seeds(found, ["ours" + tail, BLENDED + tail])[BLENDED + tail], accuracy)
        rows.append((split, *told, near))
    yield "Does the regulariser help? Rows of the same seeds; the last column predicts with the class means, too.\n"
    yield grid(("accuracy, %", *(title for _, title in kinds), "lambda 1, blended"), rows)
    effects = [(split, points(found, "ours" + tail, "ours, lambda 0" + tail)) for split, tail in SPLITS]
    told = [f"{split} {signed(p)}" for split, p in effects]
    text = f"What the regulariser itself does, lambda 1 less lambda 0, in points: {', '.join(told)}."
    known = [p for _, p in effects if p is not None]
    if known and max(known) < CLEAR:
        text += f" Nowhere does it gain {CLEAR:g} point, which is about what seeds differ by."
    yield (
        text
        + " In the disjoint split a class has one owner, so its common mean is the owner's own of the round before.\n"
    )


def _asked(label: str, tail: str) -> bool:
    return not (label == "ours, lambda 10" and tail)


def shots(found: Kept, numbers: Sequence[int]) -> str:
    """`numbers` of images a class, the last being that of the rows without a number."""
    rows = []
    for kind in (NO_MEANS, "ours", BLENDED):
        labels = [f"{kind}, {n} shots" for n in numbers[:-1]]
        cells = [percent(found.of(label)[:1], accuracy) for label in (*labels, kind)]
        rows.append((kind, *cells))
    return grid(("accuracy by images a class, %; seed 1", *map(str, numbers)), rows)


def own_classes(found: Kept) -> str:
    """Among all classes, and among those that the agent has."""
    if not any(label.endswith(OWN) for label in found.labels):
        return f"Accuracy among an agent's own classes alone: {NOT_RUN}.\n"
    rows = [
        (label, percent(found.of(label)[:1], accuracy), percent(found.of(label + OWN)[:1], own_accuracy))
        for label in HEADLINE
    ]
    return grid(("accuracy, %; Dirichlet 0.1, seed 1", "among all classes", "among the agent's own"), rows)


def noise(found: Kept) -> str:
    """What the noise of `method.privacy` costs, in the method's own prediction and by the nearest mean."""
    labels = ("ours", "ours, noise 0.05", "ours, noise 0.2", "ours, noise 0.4")
    runs = of_seeds(found, labels)
    rows = [
        (name, percent(runs[name], accuracy), shown(mean(runs[name], of("nearest_accuracy")), 100.0)) for name in labels
    ]
    return grid(("same seeds; with noise, classes with 2 images or more", "accuracy, %", "nearest mean, %"), rows)
