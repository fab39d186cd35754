"""FedOBP's page, its second half: where the personal entries are, what they cost, q, the theory, old copies."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.condensed import Run
from benchmarks.pages._fedobp_published import CHOICES, ROWS, RULES
from benchmarks.pages._parts import NOT_RUN, Kept, Of, column, grid, kept, last, mean, percent, shown, tail

DENSE_BYTES = 2_328_104


def layers(found: Kept, parity: Kept) -> Iterator[str]:
    runs = [(f"40 agents, {label}", found.of(label)[:1]) for label in found.labels if label.startswith("FedOBP")]
    runs += [(f"100 agents, {label}", parity.of(label)[:1]) for label in parity.labels if label.startswith("FedOBP")]
    tensors = sorted({name for _, some in runs for run in some for name in _tensors(run)})
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


def cost(folder: Path, found: Kept, parity: Kept) -> Iterator[str]:
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
    planned = [
        f"{label} {1e3 * value[0]:.0f} ms"
        for label in found.labels
        if (value := mean(found.of(label)[:1], of_rounds("server_plan_s")))
    ]
    if planned:
        yield (
            "Planning a round for its four agents on the server, in these runs: uploads are read and checked, scored,"
            f" and the tasks written. {'; '.join(planned)}. The machine had other work to do.\n"
        )
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
        "Time of a round of the 100-agent run, 10 participants one after the other in one process of one thread; the"
        " other implementation, one process without a network: 13.5 s of CPU for FedAvg, 14.1 for FedPer, 14.5 for"
        " FedOBP, with the participants' evaluation. The wall time is of a machine that had other work to do:\n"
    )
    rows = [
        [label, shown(mean(some, cpu_s), digits=1),
         shown(mean(some, lambda r: mean_of(x.seconds for x in r.rounds)), digits=1)]
        for label in ROWS["fedobp_parity"]
        for some in [parity.of(label)]
    ]  # fmt: skip
    yield grid(["run", "CPU s of the tasks", "s in all"], rows)
    yield (
        'With `aggregate = "shared"` an agent\'s personal entries are no part of the mean, and at q = .997 they are'
        " 0.3 % of an upload. They go up all the same: with them the server scores the agent's next start, and without"
        " them an entry that was personal once could never be compared again.\n"
    )


def quantiles(found: Kept) -> Iterator[str]:
    yield (
        "Fashion-MNIST, Dirichlet 0.1, 40 agents, 60 rounds, a tenth of each agent's training data held out of"
        " training in all rows. Held-out data: each participant measures its start with every candidate q on its"
        " held-out images, and the server takes the q that was right most often of late (method fedobp_held_out)."
        " Scores: entries above 20 or 10 times the mean score (`times`). Bytes: as many entries as 4,096 bytes carry"
        " (`budget_bytes = 4096`). ± is over three seeds; a row without it is one.\n"
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
        before = percent(runs, tail("start"))
        rows.append([label, percent(runs, last("merged")), percent(runs, last("finetuned")), before, k, cost])
    titles = ["row", "accuracy", "fine-tuned", "last 10 rounds, before training", "k", "kB down beside the model"]
    yield grid(titles, rows)


def choices(folder: Path) -> Iterator[str]:
    """The rule that needs nothing but the scores, on every data set, beside the best given q and the published one."""
    yield (
        "On every data set: the best of the given q, chosen here on test data as the authors chose theirs, the q that"
        " they published, and the rule by scores, which costs nothing: entries above so many `times` the mean score. In"
        " brackets which q, or k; all over three seeds.\n"
    )
    rows = []
    for title, (name, given, published, prefix) in CHOICES.items():
        found = kept(folder, name)
        measured = {label: value[0] for label in given if (value := mean(found.of(label), last("merged")))}
        best = max(measured, key=lambda label: measured[label]) if len(measured) == len(given) else ""
        told = [f"{100 * measured[label]:.2f} ({_q(label)})" if label in measured else NOT_RUN
                for label in (best, published)]  # fmt: skip
        for times, rule in RULES.items():
            runs = found.of(prefix + rule)
            ours, k = mean(runs, last("merged")), mean(runs, column("personal"))
            gaps = [
                f"{100 * (ours[0] - measured[label]):+.2f}" if ours and label in measured else NOT_RUN
                for label in (best, published)
            ]
            found_by_rule = f"{100 * ours[0]:.2f} ({k[0]:.0f})" if ours and k else NOT_RUN
            rows.append([title, *told, times, found_by_rule, *gaps])
    yield grid(["data set", "best q", "published q", "times", "rule", "rule to best", "rule to published"], rows)


def _q(label: str) -> str:
    return label.rpartition("q = ")[2]


def theory(folder: Path) -> Iterator[str]:
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
    first = [max(orders, key=lambda order, k=k: value[order, k]["fall"]) for k in ks]  # type: ignore[misc]
    yield (
        f"The order that helps g most, from the smallest k to the largest: {', '.join(first)}. (c - g)^2 orders as"
        " |c - g| does.\n"
    )
    above = [f"{row['fewest']:,} to {row['most']:,} above {row['times']} times" for row in theory["above_mean"]]
    yield (
        f"Entries whose score is above a multiple of the agent's mean score, over agents: {', '.join(above)}. The"
        " closer the two numbers, the less a rule by the mean differs from a quantile that is the same for all.\n"
    )
    yield (
        "Rank correlation (Spearman) over single entries of what orders them with the true increase of the loss, and"
        " with the size of the change either way; mean over agents (lowest to highest):\n"
    )
    rows = [
        [c["order"], c["entries"], f"{c['mean']:.2f} ({c['low']:.2f} to {c['high']:.2f})"]
        for c in theory["correlations"]
    ]
    yield grid(["order", "entries", "correlation"], rows)


def ages(found: Kept) -> Iterator[str]:
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


def cpu_s(run: Run) -> float | None:
    """Of a round, mean over rounds."""
    return mean_of(r.cpu_s or 0.0 for r in run.rounds) if all(r.cpu_s is not None for r in run.rounds) else None


def of_rounds(metric: str) -> Of:
    """Mean over the rounds that have it."""

    def of(run: Run) -> float | None:
        values = [r.metrics[metric] for r in run.rounds if metric in r.metrics]
        return mean_of(values) if values else None

    return of


def mean_of(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
