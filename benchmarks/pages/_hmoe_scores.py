"""What trees of experts score, of condensed runs: by decoder, at the same device time as a flat net, by lever."""

import functools
import statistics
from collections.abc import Iterable, Iterator, Sequence

from benchmarks.condensed import Measured, Run
from benchmarks.pages import _hmoe_costs as of_cost
from benchmarks.pages._parts import NOT_RUN, Kept, Of, grid, mean, percent, shown

LEAF = "information_f1"
# Decoders that answer a class, and readings that may stop at a node above one.
CLASSES = (("greedy", "information_f1"), ("beam", "beam_information_f1"), ("product", "product_information_f1"))
ABOVE = (("majority", "majority_f1"), ("expected F1", "expected_f1"))


def metric(name: str) -> Of:
    """Of the last measurement on test images; one on held-out images has other names."""

    def of(run: Run) -> float | None:
        values = [m.metrics[name] for m in run.measured if name in m.metrics]
        return values[-1] if values else None

    return of


def reading(run: Run, name: str) -> float | None:
    """Majority and expected F1 need probabilities of all classes: a tree's are those of decoder "distribution"."""
    return metric(name if run.method == of_cost.FLAT else f"distribution_{name}")(run)


def best(runs: Sequence[Run]) -> tuple[str, Of] | None:
    """The decoder of classes that scores most in the last measurement, by its mean over seeds, and its F1 of a run."""
    found = [(value[0], title, name) for title, name in CLASSES if (value := mean(runs, metric(name))) is not None]
    if not found:
        return None
    _, title, name = max(found)
    return title, metric(name)


def best_f1(runs: Sequence[Run]) -> tuple[float, float | None] | None:
    """Mean and deviation of that decoder."""
    found = best(runs)
    return None if found is None else mean(runs, found[1])


def f1_of(run: Run) -> float | None:
    found = best_f1([run])
    return None if found is None else found[0]


def decodings(found: Kept) -> str:
    """A row each; F1 in per cent, how many experts an image goes through, and what the whole run took."""
    titles = ["F1, %", "accuracy, %", *(t for t, _ in CLASSES), *(t for t, _ in ABOVE)]
    titles += ["experts an image: greedy", "product", "device time, CPU s", "rounds", "parameters, thousands"]
    rows = []
    for label in found.labels:
        runs = found.of(label)
        is_flat = runs[0].method == of_cost.FLAT
        scores = ["" if mean(runs, metric(n)) is None else percent(runs, metric(n)) for _, n in CLASSES]
        above = [mean(runs, functools.partial(reading, name=name)) for _, name in ABOVE]
        evaluated = [mean(runs, functools.partial(evaluations, decoder=name)) for name in ("greedy", "product")]
        rows.append(
            [
                label,
                percent(runs, metric("accuracy")),
                *(scores if not is_flat else [f"{scores[0]} (arg max)", "", ""]),
                *("" if value is None else shown(value, 100.0) for value in above),
                *("" if value is None else shown(value) for value in evaluated),
                shown(mean(runs, of_cost.device_s), digits=0),
                str(len(runs[0].rounds)),
                shown(mean(runs, of_cost.all_parameters), 1e-3, 0),
            ]
        )
    used = [i for i in range(len(titles)) if i == 0 or any(row[i] for row in rows)]
    return grid([titles[i] for i in used], [[row[i] for i in used] for row in rows])


def evaluations(run: Run, decoder: str) -> float | None:
    """Experts that an image went through, on average."""
    counts = run.measured[-1].counts if run.measured else {}
    return of_cost.share(counts.get(f"experts {decoder}"), counts.get("inputs"))


def within(run: Run, budget_s: float) -> tuple[int, float] | None:
    """The last measurement of a flat net that lies within so much device time: its round, and F1."""
    spent: dict[int, float] = {}
    total = 0.0
    for row in run.rounds:
        total += row.cpu_s or 0.0
        spent[row.round] = total
    found: list[Measured] = [m for m in run.measured if LEAF in m.metrics and spent.get(m.round, 0.0) <= budget_s]
    return (found[-1].round, found[-1].metrics[LEAF]) if found else None


def equal_time(found: Kept, budget_s: float | None) -> tuple[str, float] | None:
    """Of the largest flat net's rows the one that scores most within so many seconds of device time."""
    reference = of_cost.reference(found)
    if budget_s is None or reference is None:
        return None
    size = {run.flat.model_bytes for run in found.of(reference) if run.flat is not None}
    options: list[tuple[float, str]] = []
    for name in of_cost.flats(found):
        runs = [run for run in found.of(name) if run.flat is not None and run.flat.model_bytes in size]
        values = [at for run in runs if (at := within(run, budget_s)) is not None]
        if values:
            where = f"{name}, round {values[0][0]} of {len(runs[0].rounds)}"
            options.append((statistics.fmean(f1 for _, f1 in values), where))
    return (max(options)[1], max(options)[0]) if options else None


def ablation(pairs: Iterable[tuple[str, Kept, str, str]], start: Kept, base: str) -> Iterator[str]:
    """Rows (lever, experiment, label, what it is compared with): F1 of the best decoder, and the difference."""
    rows = []
    for lever, found, label, against in pairs:
        runs, before = found.of(label), start.of(against)
        value, other = best_f1(runs), best_f1(before)
        gain = NOT_RUN if value is None or other is None else f"{100 * (value[0] - other[0]):+.2f}"
        decoder = best(runs)
        rows.append([lever, shown(value, 100.0), decoder[0] if decoder else "", gain, f"`{against}`"])
    yield grid(["lever", "F1, %", "decoder", "difference, points", "to row"], rows)
    runs = start.of(base)
    greedy, product = mean(runs, metric(LEAF)), mean(runs, metric("product_information_f1"))
    if greedy and product:
        yield f"Product decoding alone gives `{base}` {100 * (product[0] - greedy[0]):+.2f} points over greedy.\n"
