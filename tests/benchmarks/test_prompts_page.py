"""docs/experiments/prompts.md from made-up runs."""

import json
from pathlib import Path

import pytest

from benchmarks import condensed, experiment, pages
from benchmarks.condensed import Condensed, Measured, Round, Run
from benchmarks.pages import prompts
from common import runfile


def made(label: str, seed: int, *accuracies: float) -> Run:
    measured = tuple(
        Measured(n, "merged", {"personal_accuracy": a, "nearest_accuracy": 0.5}, 10)
        for n, a in enumerate(accuracies, start=1)
    )
    rounds = tuple(Round(m.round, 1.0, {"personal_accuracy_trained": 0.4}) for m in measured)
    costs = {"bytes_up": 2100.0, "bytes_down": 4000.0}
    return Run(label, "m", seed, "", "done", 9.0, {}, rounds, measured, costs=costs)


def keep(folder: Path, *runs: Run) -> str:
    condensed.save(Condensed("prompts_caltech101", "abc", {}, {}, runs), folder / "prompts_caltech101.json")
    return pages.write("prompts", folder)[0].read_text()


def test_what_was_not_run_says_so(tmp_path: Path) -> None:
    assert "`fed-bench run prompts_pets`: not run." in pages.write("prompts", tmp_path)[0].read_text()


def test_rows_by_hand(tmp_path: Path) -> None:
    text = keep(tmp_path, made("ours", 1, 0.5, 0.78, 0.8), made("ours", 2, 0.5, 0.9), made("ours, disjoint", 1, 0.7))
    lines = text.splitlines()
    assert "| ours | 85.00 ± 7.07 | not run | 70.00 |" in lines
    assert (
        "| ours | 85.00 ± 7.07 | 69.67 ± 0.47 | 40.00 ± 0.00 | 50.00 ± 0.00 | 2.0 ± 0.0 | 2.1 ± 0.0 | 4.0 ± 0.0 |"
        in lines
    )
    assert not any(line.startswith("| ours, disjoint") for line in lines)
    assert "The paper's order (ours, FedOTP, FedPGP): not run." in text


def test_the_order_is_said_as_it_is(tmp_path: Path) -> None:
    text = keep(tmp_path, made("ours", 1, 0.7), made("FedOTP", 1, 0.8), made("FedPGP", 1, 0.6))
    assert "FedOTP 80.00, ours 70.00, FedPGP 60.00: not the paper's" in text


def test_features_by_hand(tmp_path: Path) -> None:
    pair = {"silhouette": 0.1, "neighbours": 0.5}
    found = {"n_images": 9, **dict.fromkeys(("static", "trained", "own_static", "own_trained"), pair)}
    (tmp_path / "prompts_features.json").write_text(json.dumps(found))
    text = pages.write("prompts", tmp_path)[0].read_text()
    assert "| all test images | 0.100 | 0.100 | 50.0 | 50.0 |" in text


@pytest.mark.parametrize("name", [name for name, _ in prompts.DATA])
def test_the_experiments_have_the_rows_that_the_page_asks_for(name: str) -> None:
    _, text = experiment.find(name)
    file = runfile.parse(text, name)
    labels = {variant.label for variant in runfile.expand(file)}
    assert {label + tail for label in prompts.HEADLINE for _, tail in prompts.SPLITS} <= labels
    learned = [row for row in file.row if row.label in prompts.HEADLINE[1:]]
    assert len(learned) == 4
    assert all(len(row.seeds) == 3 for row in learned)
