"""Tables of results: the rows that results.json keeps, as Markdown, and for a terminal.

Seconds and memory are medians over tasks, bytes are means. A process that was still warming up, or that worked on two
tasks at once, is left out of memory and CPU, because it says little about the task.
"""

import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from benchmarks.results import RunRow, traffic

MB = 1e6
Row = Mapping[str, Any]  # Any: one column's text or number
# A method whose agents only have models of their own is pooled over these.
POOLED = {"accuracy": "personal_accuracy_weighted", "accuracy_finetuned": "personal_accuracy_weighted_finetuned"}
# Of a taxonomy: of the likeliest class as the method decodes it, as other decoders do, and of readings that may stop at
# an inner node.
HIERARCHICAL = (
    "information_f1",
    "beam_information_f1",
    "product_information_f1",
    "majority_f1",
    "expected_f1",
    "distribution_majority_f1",
    "distribution_expected_f1",
)
ACCURACIES = (*POOLED, "personal_accuracy", "personal_accuracy_finetuned", *HIERARCHICAL)


def rows(runs: Iterable[RunRow], notes: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """One row a label, over its seeds, of the last stage; `notes` are rows that were not run, with the reason."""
    by_label: dict[str, list[RunRow]] = {}
    for run in runs:
        kept = by_label.setdefault(run.label, [])
        kept[:] = [r for r in kept if (r.seed, r.stage == run.stage) != (run.seed, False)]
        kept.append(run)
    table = [_row(label, of_label) for label, of_label in by_label.items()]
    return table + [{"label": label, "note": note} for label, note in (notes or {}).items() if label not in by_label]


def _row(label: str, runs: list[RunRow]) -> dict[str, Any]:
    done = [run for run in runs if run.status == "done"]
    row: dict[str, Any] = {"label": label, "method": runs[0].method, "seeds": len(done)}
    for name in ACCURACIES:
        for column in (name, f"{name}_mean_last5"):
            values = [value for run in done if (value := pooled(run.final, column)) is not None]
            if values:
                row[column] = statistics.fmean(values)
                if len(values) > 1:
                    row[f"{column}_std"] = statistics.stdev(values)
    if done:
        row |= costs(done)
    failed = [f"seed {run.seed}: {run.status}: {run.reason}" for run in runs if run.status != "done"]
    return row | ({"note": "; ".join(failed)} if failed else {})


def pooled(metrics: Mapping[str, float], name: str) -> float | None:
    """The metric over all test samples: of the agents' own models where the method has such, else of the common one."""
    base, last, count = name.partition("_mean_last")
    other = POOLED.get(base, base) + last + count
    return metrics.get(other, metrics.get(name))


def costs(runs: Sequence[RunRow]) -> dict[str, float]:
    """Seconds per round, and per task of an agent: seconds of training, memory above its start, bytes both ways."""
    tasks = [a for run in runs for r in run.rounds for a in r.agents if a.outcome == "merged"]
    clean = [a for a in tasks if not a.shared and not a.warmup]
    seconds = [r.seconds for run in runs for r in run.rounds]
    travelled = [both for run in runs for both in traffic(run.rounds, run.evaluations).values()]
    numbers = {
        "seconds": statistics.fmean(run.seconds for run in runs),
        "seconds_per_round": _median(seconds),
        "train_s": _median([a.train_s for a in clean]),
        "cpu_s": _median([a.cpu_s for a in clean]),
        "rss_peak_delta_bytes": _median([float(a.rss_peak_delta_bytes) for a in clean]),
        "rss_peak_bytes": _median([float(a.rss_peak_bytes) for a in clean]),
        "data_bytes": _median([float(a.data_bytes) for a in clean]),
        "model_bytes": _median([float(a.model_bytes) for a in clean]),
        # means, because what a host has fetched is not sent again for the other agents that it carries
        "bytes_up": _mean([float(up) for up, _ in travelled if up is not None]),
        "bytes_down": _mean([float(down) for _, down in travelled if down is not None]),
    }
    return {name: value for name, value in numbers.items() if value is not None}


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


# ------------------------------------------------------------------ for people

LABEL = 24  # characters that are never wrapped
Cell = Callable[[Row], str]
SHORT: list[tuple[str, Cell]] = [
    ("row", lambda r: f"{r['label']}: {r['note']}" if "note" in r else str(r["label"])),
    ("accuracy", lambda r: percentage(r, "accuracy")),
    ("by agent", lambda r: percentage(r, "personal_accuracy")),
    ("tuned", lambda r: percentage(r, "accuracy_finetuned")),
    ("F1", lambda r: percentage(r, "information_f1")),
    ("F1 product", lambda r: percentage(r, "product_information_f1")),
    ("s", lambda r: number(r.get("seconds"), 1.0)),
    ("ms/round", lambda r: number(r.get("seconds_per_round"), 1e-3)),
    ("MB", lambda r: number(r.get("rss_peak_bytes"), MB)),
    ("+MB", lambda r: number(r.get("rss_peak_delta_bytes"), MB)),
    ("kB up", lambda r: number(r.get("bytes_up"), 1e3)),
    ("kB down", lambda r: number(r.get("bytes_down"), 1e3)),
]
LONG: list[tuple[str, Cell]] = [
    ("row", lambda r: str(r["label"])),
    ("accuracy, %", lambda r: percentage(r, "accuracy")),
    ("mean of last 5", lambda r: percentage(r, "accuracy_mean_last5")),
    ("mean over agents, %", lambda r: percentage(r, "personal_accuracy")),
    ("fine-tuned, %", lambda r: percentage(r, "accuracy_finetuned")),
    ("information F1, %", lambda r: percentage(r, "information_f1")),
    ("by beam", lambda r: percentage(r, "beam_information_f1")),
    ("by product", lambda r: percentage(r, "product_information_f1")),
    ("majority F1, %", lambda r: percentage(r, "majority_f1") or percentage(r, "distribution_majority_f1")),
    ("best expected F1, %", lambda r: percentage(r, "expected_f1") or percentage(r, "distribution_expected_f1")),
    ("seeds", lambda r: str(r.get("seeds", ""))),
    ("s", lambda r: number(r.get("seconds"), 1.0)),
    ("s/round", lambda r: number(r.get("seconds_per_round"), 1.0)),
    ("CPU s/task", lambda r: number(r.get("cpu_s"), 1.0)),
    ("peak MB", lambda r: number(r.get("rss_peak_bytes"), MB)),
    ("MB above start", lambda r: number(r.get("rss_peak_delta_bytes"), MB)),
    ("kB up", lambda r: number(r.get("bytes_up"), 1e3)),
    ("kB down", lambda r: number(r.get("bytes_down"), 1e3)),
    ("note", lambda r: str(r.get("note", ""))),
]
CAPTION = (
    "accuracy: per cent, last round, test data; pooled over all agents, and mean by agent. s: the whole run. "
    "Of a task: peak memory of its process and MB that it added (medians), kB sent and fetched (means)"
)


def columns(table: Sequence[Row], wanted: Sequence[tuple[str, Cell]] = LONG) -> list[tuple[str, list[str]]]:
    """Titles with their cells; a column that no row has is left out."""
    filled = [(title, [cell(row) for row in table]) for title, cell in wanted]
    return [(title, cells) for title, cells in filled if any(cells)]


def percentage(row: Row, name: str) -> str:
    """An accuracy in per cent, with the standard deviation over seeds when there are several."""
    value, spread = row.get(name), row.get(f"{name}_std")
    if value is None:
        return ""
    return f"{100 * value:.2f}" + (f" ± {100 * spread:.2f}" if spread is not None else "")


def number(value: float | None, unit: float) -> str:
    if value is None:
        return ""
    scaled = value / unit
    return f"{scaled:.0f}" if abs(scaled) >= 100 else f"{scaled:.1f}" if abs(scaled) >= 1 else f"{scaled:.2g}"


def markdown(table: Sequence[Row]) -> str:
    shown = columns(table)
    if not shown:
        return "(no runs)\n"
    lines = [[title for title, _ in shown], ["---" if i == 0 else "---:" for i in range(len(shown))]]
    lines += [[_escaped(cells[i]) for _, cells in shown] for i in range(len(table))]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def for_terminal(table: Sequence[Row], title: str) -> Table:
    shown = columns(table, SHORT)
    longest = max((len(label) for _, labels in shown[:1] for label in labels), default=0)
    grid = Table(title=title, caption=CAPTION, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title_justify="left")
    for i, (name, _) in enumerate(shown):
        # on a narrow terminal "50.00 ± 0.95" takes two lines before a label is cut
        grid.add_column(name, justify="right" if i else "left", no_wrap=i == 0 and longest <= LABEL)
    for i in range(len(table)):
        grid.add_row(*(escape(cells[i]) for _, cells in shown))  # a note may have brackets
    return grid


def _escaped(text: str) -> str:
    return re.sub(r"([|\n])", lambda m: "\\|" if m.group() == "|" else " ", text)
