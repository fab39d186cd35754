"""docs/experiments/fedobp.md: FedOBP beside its baselines, and what it costs."""

import json
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

from benchmarks.condensed import Run
from benchmarks.pages import _fedobp_pictures as pictures
from benchmarks.pages._parts import (
    NOT_RUN,
    Kept,
    at,
    column,
    during,
    grid,
    kept,
    last,
    mean,
    percent,
    shown,
    window,
)

DENSE_BYTES = 2_328_104
# Tables of the authors' stored runs: 100 agents, 400 rounds, one seed; the best of four evaluations on test data.
PUBLISHED = {
    "fedobp_fashion_mnist": {
        "FedAvg": "88.06 / 96.97", "FedPer": "96.57 / 96.51", "FedOBP, q = .9999": "96.93 / 96.82 (q = .99992)",
        "local": "95.06 / 95.03", "FedRep": "96.15 / 96.20", "LG-FedAvg": "95.36 / 95.38", "APFL": "93.25 / 97.11",
        "FedOBP, q = .997": "96.35 (q = .997, 200 rounds)", "FedOBP, classifier only, q = .9908": "97.05",
        "FedOBP, running score": "96.81 (q = .999705)",
    },
    "fedobp_fashion_mnist_dir05": {
        "FedAvg": "90.75 / 93.57", "FedPer": "91.72 / 91.53", "FedOBP, q = .997": "92.63 / 93.01 (q = .9992)",
    },
    "fedobp_cifar100": {
        "FedAvg": "26.76 / 49.16", "FedPer": "42.88 / 42.86", "FedOBP, q = .99505": "46.08 / 46.79",
    },
}  # fmt: skip
ROWS = {
    "fedobp_fashion_mnist": (
        "FedAvg", "FedPer", "FedOBP, q = .997", "FedOBP, q = .9999", "local", "FedRep", "LG-FedAvg", "APFL", "Ditto",
        "FedSelect", "FedOBP, score (c-g)^2", "FedOBP, classifier only, q = .9908", "FedOBP, running score",
        "FedOBP, mask in aggregation", "FedOBP, scored on the agent", "FedOBP, from the first model",
    ),
    "fedobp_fashion_mnist_dir05": ("FedAvg", "FedPer", "FedOBP, q = .997"),
    "fedobp_cifar100": ("FedAvg", "FedPer", "FedOBP, q = .99505"),
    "fedobp_parity": ("FedAvg", "local", "FedPer", "FedOBP, q = .9999", "FedOBP, q = .99"),
    "fedobp_quantile": (
        "q = .9", "q = .99", "q = .997", "q = .999", "q = .9999", "rule: held-out data", "rule: scores", "rule: bytes",
    ),
}  # fmt: skip
INTRODUCTION = """# FedOBP

Federated Optimal Brain Personalization (arXiv 2604.16574): each agent starts a round from the common model, with the
few entries of its own last model that a score says matter most. Written by `fed-bench page fedobp` from the JSON files
beside it; "not run" stands where a run is still missing. Accuracies are per cent of test images, pooled over agents,
in the last round: never the best one.

    fed-bench run fedobp_fashion_mnist --out out/fashion     goes on where it stopped; the other experiments likewise
    fed-bench condense out/fashion --out docs/experiments
    fed-bench page fedobp
"""


def write(folder: Path) -> list[Path]:
    text = "\n".join([INTRODUCTION, *_sections(folder)])
    path = folder / "fedobp.md"
    path.write_text(text.rstrip() + "\n", encoding="utf-8")
    return [path, *pictures.draw(kept(folder, "fedobp_parity"), kept(folder, "fedobp_fashion_mnist"), folder)]


def _sections(folder: Path) -> Iterator[str]:
    parity = kept(folder, "fedobp_parity")
    yield "## The same run as another implementation\n"
    yield from _parity(parity)
    for name, title in (
        ("fedobp_fashion_mnist", "Fashion-MNIST, Dirichlet 0.1"),
        ("fedobp_fashion_mnist_dir05", "Fashion-MNIST, Dirichlet 0.5"),
        ("fedobp_cifar100", "CIFAR-100, Dirichlet 0.1"),
    ):
        yield f"## {title}\n"
        yield _accuracies(name, kept(folder, name))
    yield "## What the margin is made of\n"
    yield _margin(kept(folder, "fedobp_fashion_mnist"), parity)
    yield "## Which entries are personal\n"
    yield from _layers(kept(folder, "fedobp_fashion_mnist"), parity)
    yield "## Cost\n"
    yield from _cost(folder, kept(folder, "fedobp_fashion_mnist"), parity)
    yield "## q without test data\n"
    yield from _quantiles(kept(folder, "fedobp_quantile"))
    yield "## Does the score find what matters?\n"
    yield from _theory(folder)
    yield "## When the stored copy is old\n"
    yield from _ages(kept(folder, "fedobp_age"))


def _parity(found: Kept) -> Iterator[str]:
    yield (
        "Fashion-MNIST, Dirichlet 0.1, 100 agents, 10 a round; partition, first weights and participants are given."
        " With the given batch orders of rounds 1 and 2, the counts of correct predictions before and after training"
        " equal those of the other implementation and the weights after round 1 agree to 1e-6"
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
        before = percent(runs, _tail("start"))
        k = shown(mean(runs, column("personal")), digits=0) if label.startswith("FedOBP") else ""
        rows.append([label, str(len(runs)), *cells, before, k, PUBLISHED[name].get(label, "")])
    titles = ["row", "seeds", "accuracy", "fine-tuned", "last 10 rounds, before training", "k", "published"]
    note = (
        "40 agents of 100, 4 a round, 60 rounds. Fine-tuned: after 5 epochs on the agent's own data. Last 10 rounds:"
        " the participants of each, with the model that they start from. Published: without / with fine-tuning, 100"
        " agents, 400 rounds, one seed, the best of four evaluations on test data. ± is over seeds.\n"
    )
    return f"{note}\n{grid(titles, rows)}"


def _tail(moment: str) -> Any:  # a function of a Run
    def of(run: Run) -> float | None:
        values = [v for r in run.rounds[-10:] if (v := during(r.metrics, moment)) is not None]
        return sum(values) / len(values) if values else None

    return of


def _margin(found: Kept, parity: Kept) -> str:
    avg, obp, per = (found.of(label) for label in ("FedAvg", "FedOBP, q = .997", "FedPer"))
    numbers = [mean(avg, last("merged")), mean(obp, last("merged")), mean(avg, last("finetuned"))]
    text = (
        "The published comparison tests every method with the model that an agent starts a round from, and by that"
        " measure FedOBP leads. Much of its lead over FedAvg is that FedAvg's common model has seen nothing of the"
        " agent yet: after five epochs on the agent's own data, which is what every agent does in every round anyway,"
        " FedAvg equals or passes it in the authors' own tables (Fashion-MNIST 96.97 against 96.93, CIFAR-100 49.16"
        " against 46.08). The published q were chosen on test data, and the reported number is the best of four"
        " evaluations on test data; differences below half a point are of one seed. "
    )
    if all(number is not None for number in numbers):
        plain, ours, tuned = (100 * number[0] for number in numbers if number is not None)
        against = f" FedPer reaches {percent(per, last('merged'))}." if per else ""
        text += (
            f"Here, after 60 rounds: FedOBP (q = .997) {ours:.2f}, FedAvg {plain:.2f}, FedAvg fine-tuned {tuned:.2f}."
            f" Of the {ours - plain:.2f} points over FedAvg, fine-tuning FedAvg gives {tuned - plain:.2f}.{against}"
        )
    else:
        text += f"Our own figures: {NOT_RUN} in full."
    return text + "\n"


def _layers(found: Kept, parity: Kept) -> Iterator[str]:
    runs = [(f"40 agents, {label}", found.of(label)[:1]) for label in found.labels if label.startswith("FedOBP")]
    runs += [(f"100 agents, {label}", parity.of(label)[:1]) for label in parity.labels if label.startswith("FedOBP")]
    tensors = list(dict.fromkeys(name for _, some in runs for run in some for name in _tensors(run)))
    yield (
        "Personal entries of an agent in a round by tensor, mean over the second half of the rounds (an agent that"
        " comes for the first time has none).\n"
    )
    if not tensors:
        yield f"{NOT_RUN}\n"
        return
    rows = [
        [
            label,
            *(shown(mean(some, column(name)), digits=1) for name in ("personal", *(f"personal {t}" for t in tensors))),
        ]
        for label, some in runs
    ]
    yield grid(["run", "k", *(name.removeprefix("base.") for name in tensors)], rows)
    yield "![where the personal entries are](fedobp_personal.png)\n"


def _tensors(run: Run) -> list[str]:
    names = dict.fromkeys(name for r in run.rounds for name in r.counts)
    return [n.removeprefix("personal ") for n in names if n.startswith("personal ") and "(bytes)" not in n]


def _cost(folder: Path, found: Kept, parity: Kept) -> Iterator[str]:
    scoring = _json(folder / "fedobp_scoring.json")
    if scoring is None:
        yield f"Scoring on the server: {NOT_RUN}.\n"
    else:
        yield (
            f"Scoring on the server, {scoring['n_parameters']:,} parameters an agent, models read from its disk"
            f" ({scoring['cpu']}, one thread); memory is what the process rises by, mapped files included.\n"
        )
        rows = [
            [
                f"{t['q']:g}", str(t["n_agents"]), f"{t['median_ms']:.2f}", f"{t['slowest_ms']:.2f}",
                f"{t['rss_peak_delta_bytes'] / 1e6:.1f}", f"{t['values_bytes']:,}", f"{t['bits_bytes']:,}",
                f"{100 * min(t['values_bytes'], t['bits_bytes']) / scoring['dense_bytes']:.3f}",
            ]
            for t in scoring["timed"]
        ]  # fmt: skip
        titles = ["q", "agents", "ms, median", "ms, slowest", "MB", "as values, bytes", "as bits, bytes", "% of dense"]
        yield grid(titles, rows)
    on_agent = found.of("FedOBP, scored on the agent")
    spans = [r.spans["score"] for run in on_agent for r in run.rounds if "score" in r.spans]
    told = f"{1e3 * sum(spans) / len(spans):.1f} ms a task" if spans else NOT_RUN
    yield f'On the agent the scoring takes 0 ms; with `score_on = "agent"`: {told}.\n'
    yield "Bytes down for the personal entries, by the form in which they went, mean of a task:\n"
    rows = []
    for title, source in (("40 agents", found), ("100 agents", parity)):
        for label in source.labels:
            if label.startswith("FedOBP"):
                some = source.of(label)[:1]
                forms = [mean(some, column(f"personal as {form} (bytes)")) for form in ("values", "bits")]
                both = sum(form[0] for form in forms if form is not None)
                share = f"{100 * both / DENSE_BYTES:.3f}"
                rows.append([f"{title}, {label}", *(shown(form, digits=0) for form in forms), share])
    yield grid(["run", "values", "bits", "% of the dense model"], rows) if rows else f"{NOT_RUN}\n"
    yield (
        "Wall time of a round of the 100-agent run, 10 participants one after the other in one process of one thread,"
        " beside the other implementation's single process (13.5 s FedAvg, 14.1 s FedPer, 14.5 s FedOBP of CPU):\n"
    )
    rows = [
        [label, shown(mean(parity.of(label), lambda r: sum(x.seconds for x in r.rounds) / len(r.rounds)), digits=1)]
        for label in ROWS["fedobp_parity"]
    ]
    yield grid(["run", "s a round"], rows)


def _quantiles(found: Kept) -> Iterator[str]:
    yield (
        "Fashion-MNIST, Dirichlet 0.1, 40 agents, 60 rounds, a tenth of each agent's training data held out of"
        " training in all rows. Held-out data: each participant measures its start with every candidate q on its"
        " held-out images, the"
        ' server takes the best of the last rounds (`q_rule = "held_out"`). Scores: entries above a multiple of the'
        ' mean score (`"scores"`). Bytes: as many entries as a budget of bytes carries (`"bytes"`).\n'
    )
    rows = []
    for label in ROWS["fedobp_quantile"]:
        runs = found.of(label)
        down = [
            mean(runs, column(name))
            for name in ("personal as values (bytes)", "personal as bits (bytes)", "trial (bytes)")
        ]
        cost = f"{sum(d[0] for d in down if d is not None) / 1e3:.1f}" if runs else NOT_RUN
        k = shown(mean(runs, column("personal")), digits=0)
        before = percent(runs, _tail("start"))
        rows.append([label, percent(runs, last("merged")), percent(runs, last("finetuned")), before, k, cost])
    titles = ["row", "accuracy", "fine-tuned", "last 10 rounds, before training", "k", "kB down beside the model"]
    yield grid(titles, rows)


def _theory(folder: Path) -> Iterator[str]:
    theory = _json(folder / "fedobp_theory.json")
    if theory is None:
        yield f"{NOT_RUN}\n"
        return
    ks = list(dict.fromkeys(row["k"] for row in theory["replaced"]))
    orders = list(dict.fromkeys(row["order"] for row in theory["replaced"]))
    value = {(row["order"], row["k"]): row for row in theory["replaced"]}
    yield (
        f"{theory['experiment']}; {len(theory['agents'])} agents of the last round, loss on their training data. c, an"
        f" agent's model after its training, has loss {theory['loss_own']:.4f}, g, the mean of the round,"
        f" {theory['loss_common']:.4f}. How far c's loss rises when its k first entries by that order are replaced by"
        " g's:\n"
    )
    titles = ["order", *(f"k = {k}" for k in ks)]
    yield grid(titles, ([o, *(f"{value[o, k]['rise']:+.4f}" for k in ks)] for o in orders))
    yield "And how far g's loss falls when it gets those entries of c, which is what the method does:\n"
    yield grid(titles, ([o, *(f"{value[o, k]['fall']:+.4f}" for k in ks)] for o in orders))
    yield (
        "Rank correlation (Spearman) over single entries of what orders them with the true increase of the loss, and"
        " with the size of the change either way; mean over agents (lowest to highest):\n"
    )
    rows = [
        [c["order"], c["entries"], f"{c['mean']:.2f} ({c['low']:.2f} to {c['high']:.2f})"]
        for c in theory["correlations"]
    ]
    yield grid(["order", "entries", "correlation"], rows)


def _ages(found: Kept) -> Iterator[str]:
    yield (
        "Accuracy of agents by the number of rounds since their last upload, q = .997, all 40 agents measured after"
        " every round. Gain: against the same agent's mean over all ages, so that easy and hard agents do not"
        " count.\n"
    )
    groups = (("1", 1, 1), ("4 to 6", 4, 6), ("15 to 25", 15, 25))
    rows = []
    for label in ("FedOBP, q = .997", "FedAvg"):
        ages = [age for run in found.of(label) for age in run.ages]
        for title, low, high in groups:
            rows.append([label, title, *_pooled((a.n, a.accuracy, a.gain) for a in ages if low <= a.age <= high)])
    yield grid(["run", "rounds old", "measurements", "accuracy", "gain, points"], rows)


def _pooled(rows: Iterable[tuple[int, float, float]]) -> list[str]:
    rows = list(rows)
    n = sum(row[0] for row in rows)
    if not n:
        return [NOT_RUN] * 3
    accuracy, gain = (sum(row[0] * row[i] for row in rows) / n for i in (1, 2))
    return [str(n), f"{100 * accuracy:.2f}", f"{100 * gain:+.2f}"]


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
