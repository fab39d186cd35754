"""docs/experiments/fedobp.md: FedOBP beside its baselines, and what it costs."""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

from benchmarks.condensed import Run
from benchmarks.pages import _fedobp_details as details
from benchmarks.pages import _fedobp_pictures as pictures
from benchmarks.pages._fedobp_published import PUBLISHED, ROWS
from benchmarks.pages._parts import (
    NOT_RUN,
    Kept,
    at,
    column,
    grid,
    kept,
    last,
    mean,
    percent,
    shown,
    tail,
    window,
)

INTRODUCTION = """# FedOBP

Federated Optimal Brain Personalization (arXiv 2604.16574): each agent starts a round from the common model, with the
few entries of its own last model that a score says matter most. Written by `fed-bench page fedobp` from the JSON files
beside it; "not run" stands where a run is still missing. Accuracies are per cent of test images, pooled over agents,
of the agents' own models where a method has such, in the last round: never the best one.

    fed-bench run fedobp_fashion_mnist --out out/fashion     goes on where it stopped; the other experiments likewise
    fed-bench condense out/fashion --out docs/experiments
    fed-bench theory fedobp_parity --out docs/experiments    what losing entries costs, by score and otherwise
    fed-bench scoring --out docs/experiments                 time and memory of the scoring on the server
    fed-bench page fedobp
"""
# Experiment, title, and the row of FedOBP that is held against the others.
DATA_SETS = (
    ("fedobp_fashion_mnist", "Fashion-MNIST, Dirichlet 0.1", "FedOBP, q = .997"),
    ("fedobp_fashion_mnist_dir05", "Fashion-MNIST, Dirichlet 0.5", "FedOBP, q = .997"),
    ("fedobp_cifar100", "CIFAR-100, Dirichlet 0.1", "FedOBP, q = .99505"),
)


def write(folder: Path) -> list[Path]:
    text = "\n".join([INTRODUCTION, *_sections(folder)])
    path = folder / "fedobp.md"
    path.write_text(text.rstrip() + "\n", encoding="utf-8")
    return [path, *pictures.draw(kept(folder, "fedobp_parity"), kept(folder, "fedobp_fashion_mnist"), folder)]


def _sections(folder: Path) -> Iterator[str]:
    parity = kept(folder, "fedobp_parity")
    yield "## The same run as another implementation\n"
    yield from _parity(parity)
    for name, title, _ in DATA_SETS:
        yield f"## {title}\n"
        yield _accuracies(name, kept(folder, name))
    yield "## What the margin is made of\n"
    yield from _margin(folder)
    yield "## Which entries are personal\n"
    yield from details.layers(kept(folder, "fedobp_fashion_mnist"), parity)
    yield "## Cost\n"
    yield from details.cost(folder, kept(folder, "fedobp_fashion_mnist"), parity)
    yield "## q without test data\n"
    yield from details.quantiles(kept(folder, "fedobp_quantile"))
    yield from details.choices(folder)
    yield "## Does the score find what matters?\n"
    yield from details.theory(folder)
    yield "## When the stored copy is old\n"
    yield from details.ages(kept(folder, "fedobp_age"))


def _parity(found: Kept) -> Iterator[str]:
    yield (
        "Fashion-MNIST, Dirichlet 0.1, 100 agents, 10 a round; partition, first weights and participants are given."
        " With the given batch orders of rounds 1 and 2, the counts of correct predictions before and after training"
        " equal those of the other implementation (15 of 16; one is 1,282 for 1,281) and the weights after round 1"
        " agree to 1e-6"
        " (tests/methods/test_parity_fedobp.py; FedAvg, FedPer, FedOBP with q = .9999 and .99). That holds for the"
        " same memory layout and kernels: on one machine, the 1,358 correct after the training of round 1 become"
        " 1,357 with channels last or in float64 and 1,356 with convolutions without oneDNN, so a difference of two"
        " is rounding. Then 60 rounds with orders of our own: means over rounds of the participants' accuracy before"
        " / after their training, and all agents.\n"
    )
    rows = []
    for label in ROWS["fedobp_parity"]:
        runs = found.of(label)[:1]
        spans = ((1, 20), (21, 40), (41, 60))
        cells = [f"{percent(runs, window('start', *s))} / {percent(runs, window('trained', *s))}" for s in spans]
        rows.append([label, *cells, *(percent(runs, at(n)) for n in (20, 40, 60))])
    titles = ["run", "rounds 1 to 20", "21 to 40", "41 to 60", "all at 20", "all at 40", "all at 60"]
    yield grid(titles, rows)
    noise = [f"{label}: {text}" for label in found.labels if (text := _noise(found.of(label)))]
    told = "; ".join(noise) if noise else NOT_RUN
    yield (
        "Noise floor, the distance between two runs of ours with other batch orders, in points of the means of rounds"
        f" 1 to 20, 21 to 40 and 41 to 60 before training, and of all agents at 60: {told}.\n"
    )
    if found.runs:
        yield "![accuracy before training](fedobp_parity.png)\n"


def _noise(runs: list[Run]) -> str:
    for a, b in combinations(runs, 2):
        measures = [*(window("start", first, first + 19) for first in (1, 21, 41)), at(60)]
        pairs = [(of(a), of(b)) for of in measures]
        if all(x is not None and y is not None for x, y in pairs):
            return ", ".join(f"{100 * abs(x - y):.2f}" for x, y in pairs if x is not None and y is not None)
    return ""


def _accuracies(name: str, found: Kept) -> str:
    rows = []
    for label in ROWS[name]:
        runs = found.of(label)
        cells = [percent(runs, last(when)) for when in ("merged", "finetuned")]
        before = percent(runs, tail("start"))
        k = shown(mean(runs, column("personal")), digits=0) if label.startswith("FedOBP") else ""
        rows.append([label, str(len(runs)), *cells, before, k, PUBLISHED[name].get(label, "")])
    titles = ["row", "seeds", "accuracy", "fine-tuned", "last 10 rounds, before training", "k", "published"]
    note = (
        "40 agents of 100, 4 a round, 60 rounds. Fine-tuned: after 5 epochs on the agent's own data. Last 10 rounds:"
        " the participants of each, with the model that they start from. Published: without / with fine-tuning, 100"
        " agents, 400 rounds, one seed, the best of four evaluations on test data. ± is over seeds.\n"
    )
    return f"{note}\n{grid(titles, rows)}"


def _margin(folder: Path) -> Iterator[str]:
    yield (
        "The published comparison tests every method with the model that an agent starts a round from, and by that"
        " measure FedOBP leads. Much of its lead over FedAvg is that FedAvg's common model has seen nothing of the"
        " agent yet: after five epochs on the agent's own data, which is what every agent does in every round anyway,"
        " FedAvg equals or passes it in the authors' own tables (Fashion-MNIST 96.97 against 96.93, CIFAR-100 49.16"
        " against 46.08). The published q were chosen on test data, and the reported number is the best of four"
        " evaluations on test data; differences below half a point are of one seed. Our own figures:\n"
    )
    yield "".join(f"- {title}: {_made_of(kept(folder, name), own)}.\n" for name, title, own in DATA_SETS)


def _made_of(found: Kept, own: str) -> str:
    avg, per, obp = (found.of(label) for label in ("FedAvg", "FedPer", own))
    numbers = [mean(runs, last(when)) for runs in (avg, obp) for when in ("merged", "finetuned")]
    if any(number is None for number in numbers):
        return f"{NOT_RUN} in full"
    plain, tuned, ours, ours_tuned = (100 * number[0] for number in numbers if number is not None)
    against = f", FedPer {percent(per, last('merged'))}" if per else ""
    text = (
        f"FedAvg {plain:.2f}, {own} {ours:.2f}{against}; fine-tuned FedAvg {tuned:.2f}, FedOBP {ours_tuned:.2f}. Of"
        f" the {ours - plain:.2f} points between the first two, fine-tuning FedAvg gives {tuned - plain:.2f}; with both"
        f" fine-tuned {ours_tuned - tuned:+.2f} remain"
    )
    rows = {label: value[0] for label in found.labels if (value := mean(found.of(label), last("merged")))}
    best = max(rows, key=lambda label: rows[label])
    return f"{text}. The first of all {len(rows)} rows is {best} with {100 * rows[best]:.2f}"
