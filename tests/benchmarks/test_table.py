import io
from dataclasses import replace

import pytest
from rich.console import Console

from benchmarks import table
from tests.benchmarks.made import detail, row


def test_seeds_are_averaged_with_their_spread() -> None:
    """Accuracies 0.4 and 0.6: mean 0.5, sample standard deviation sqrt(0.02)."""
    runs = [replace(row(), seed=seed, final={"accuracy": value}) for seed, value in ((1, 0.4), (2, 0.6))]
    (found,) = table.rows(runs)
    assert found["accuracy"] == pytest.approx(0.5)
    assert found["accuracy_std"] == pytest.approx(0.02**0.5)
    assert table.percentage(found, "accuracy") == "50.00 ± 14.14"


def test_warm_up_and_shared_processes_are_left_out_of_memory() -> None:
    message = detail()
    for report, name in (
        (message.rounds[0].agents[0].report, "warmup"),
        (message.rounds[0].agents[1].report, "shared"),
    ):
        setattr(report, name, True)
        report.rss_peak_delta_bytes = 10**9
    assert table.rows([row(message)])[0]["rss_peak_delta_bytes"] == 1_000_000


def test_unknown_bytes_are_not_taken_for_zero() -> None:
    assert table.rows([row()])[0]["bytes_up"] == 1000


def test_only_the_last_stage_of_a_row_is_shown() -> None:
    stages = [replace(row(), stage=stage, final={"accuracy": value}) for stage, value in (("a", 0.1), ("b", 0.9))]
    assert [found["accuracy"] for found in table.rows(stages)] == [0.9]


def test_a_failed_run_says_why_and_gives_no_number() -> None:
    (found,) = table.rows([replace(row(), status="failed", reason="no agent can serve it")])
    assert found["note"] == "seed 1: failed: no agent can serve it"
    assert "accuracy" not in found


def test_a_row_that_was_not_run_says_what_it_needs() -> None:
    text = table.markdown(table.rows([row()], {"CNN": "needs edgefed[torch]"}))
    assert "| CNN |" in text
    assert "needs edgefed[torch]" in text


def test_a_narrow_terminal_still_tells_rows_apart_and_brackets_are_no_markup() -> None:
    rows = table.rows(
        [replace(row(), label=name) for name in ("FedAvg, small", "FedProx, small")], {"CNN": "needs x[y]"}
    )
    console = Console(width=70, file=io.StringIO())
    console.print(table.for_terminal(rows, "mine"))
    assert all(text in console.file.getvalue() for text in ("FedAvg, small", "FedProx, small", "x[y]"))


def test_markdown_is_one_line_a_row_with_equal_cells() -> None:
    lines = table.markdown(table.rows([row(), replace(row(), label="a|b")])).splitlines()
    assert len(lines) == 4
    assert "a\\|b" in lines[3]
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1


def test_no_runs_make_no_table() -> None:
    assert table.markdown([]) == "(no runs)\n"


def test_terminal_table_holds_every_row() -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table.for_terminal(table.rows([row()]), "quickstart"))
    text = console.export_text()
    assert "FedAvg" in text
    assert "50.00" in text


@pytest.mark.parametrize(
    ("value", "unit", "text"), [(123_456_789, 1e6, "123"), (1_500_000, 1e6, "1.5"), (1_234, 1e6, "0.0012"), (0, 1, "0")]
)
def test_numbers_keep_two_digits_or_so(value: float, unit: float, text: str) -> None:
    assert table.number(value, unit) == text
