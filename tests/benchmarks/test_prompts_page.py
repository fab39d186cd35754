"""docs/experiments/prompts.md from made-up runs."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import condensed, experiment, pages
from benchmarks.condensed import Condensed, Measured, Round, Run
from benchmarks.pages import _prompts_measures as measures
from benchmarks.pages import prompts
from common import runfile


def made(label: str, seed: int, *accuracies: float, metric: str = "personal_accuracy") -> Run:
    measured = tuple(
        Measured(n, "merged", {metric: a, "nearest_accuracy": 0.5}, 10) for n, a in enumerate(accuracies, start=1)
    )
    rounds = tuple(Round(m.round, 1.0, {"personal_accuracy_trained": 0.4}) for m in measured)
    costs = {"bytes_up": 2100.0, "bytes_down": 4000.0, "seconds_per_round": 3.0}
    return Run(label, "m", seed, "", "done", 9.0, {}, rounds, measured, costs=costs)


def keep(folder: Path, *runs: Run, experiment: str = "prompts_caltech101") -> str:
    condensed.save(Condensed(experiment, "abc", {}, {}, runs), folder / f"{experiment}.json")
    return pages.write("prompts", folder)[0].read_text()


def keep_json(folder: Path, name: str, found: Any) -> None:
    (folder / name).write_text(json.dumps(found))


def test_what_was_not_run_says_so(tmp_path: Path) -> None:
    text = pages.write("prompts", tmp_path)[0].read_text()
    for what in (
        "`fed-bench run prompts_pets`",
        "`fed-bench run prompts_central`",
        "`python -m benchmarks.prompt_costs`",
    ):
        assert f"{what}: not run." in text


def test_rows_by_hand(tmp_path: Path) -> None:
    text = keep(tmp_path, made("ours", 1, 0.5, 0.78, 0.8), made("ours", 2, 0.5, 0.9), made("ours, disjoint", 1, 0.7))
    lines = text.splitlines()
    assert "| ours | 85.00 ± 7.07 | not run | 70.00 | 91.36 |" in lines
    of_all = "85.00 ± 7.07 | 69.67 ± 0.47 | 40.00 ± 0.00 | 50.00 ± 0.00 | 2.0 ± 0.0 | 2.1 ± 0.0 | 4.0 ± 0.0 | 3.0 ± 0.0"
    assert f"| ours | 2 | {of_all} |" in lines
    assert not any(line.startswith("| ours, disjoint") for line in lines)


def test_it_says_how_long_it_takes(tmp_path: Path) -> None:
    runs = [replace(made("ours", seed, 0.5), seconds=100.0) for seed in (1, 2, 3)]
    assert "3 runs, 5 minutes in all" in keep(tmp_path, *runs)


def test_the_order_is_said_as_it_is(tmp_path: Path) -> None:
    text = keep(tmp_path, made("ours", 1, 0.7), made("FedOTP", 1, 0.8), made("FedPGP", 1, 0.6))
    assert "Dirichlet 0.1: FedOTP 80.00, ours 70.00, FedPGP 60.00, not the paper's; Dirichlet 0.5: not run" in text


def test_rows_are_compared_by_the_seeds_that_both_have(tmp_path: Path) -> None:
    """Ours has 60 and 80 over two seeds, the other row 50 with the first one: 10 points, not 20."""
    text = keep(
        tmp_path, made("ours", 1, 0.6), made("ours", 2, 0.8), made("ours, lambda 0", 1, 0.5), made("zero-shot", 1, 0.4)
    )
    assert "lambda 1 less lambda 0, in points: Dirichlet 0.1 +10.0, Dirichlet 0.5 not run, disjoint not run." in text
    assert "| Dirichlet 0.1 | not run | 50.00 | 60.00 | not run | not run |" in text
    assert "Nowhere does it gain" not in text


def test_an_adapter_that_hears_of_nobody_is_said_to_be_ahead(tmp_path: Path) -> None:
    runs = [made("ours", 1, 0.6), made(measures.ALONE, 1, 0.65), made(measures.MEANS, 1, 0.7)]
    text = keep(tmp_path, *runs)
    assert "Dirichlet 0.1: +5.0 and +10.0; Dirichlet 0.5: not run and not run" in text
    assert "behind what needs no federation on these splits: Dirichlet 0.1." in text
    assert "behind what" not in keep(tmp_path, *(replace(run, label="ours") for run in runs[1:2]))


def test_shots_and_label_spaces_have_tables_of_their_own(tmp_path: Path) -> None:
    few, own = made("ours, 2 shots", 1, 0.5), made("ours, own classes", 1, 0.9, metric="personal_accuracy_own")
    text = keep(tmp_path, made("ours", 1, 0.7), few, own)
    assert "| ours | not run | 50.00 | not run | not run | 70.00 |" in text
    assert "| ours | 70.00 | 90.00 |" in text
    assert "| ours, 2 shots" not in text


def test_curves_are_drawn_where_there_are_runs(tmp_path: Path) -> None:
    keep(tmp_path, made("ours", 1, 0.5, 0.7), made("zero-shot", 1, 0.4))
    assert (tmp_path / "prompts_caltech101.png").stat().st_size > 5_000
    assert not (tmp_path / "prompts_pets.png").exists()


def test_costs_by_hand(tmp_path: Path) -> None:
    """A prompt of 1,000 bytes of an encoder's 2 million: 1/2,000; 5 means of 400 are twice the prompt."""
    sizes = {"encoder_bytes": 2_000_000, "prompt_bytes": 1000, "mean_bytes": 400, "n_classes": 5, "adapter_bytes": 7}
    images = {
        "n_images": 9,
        "without_cache_s": 4.0,
        "without_cache_cpu_s": 3.0,
        "with_cache_s": 0.2,
        "with_cache_cpu_s": 0.1,
    }
    step = {
        "n_classes": 5,
        "batch": 8,
        "step_ms": 100.0,
        "texts_ms": 80.0,
        "uncut_ms": 240.0,
        "n_tokens": 20,
        "n_positions": 77,
    }
    onnx, torch = {"peak_bytes": 2e8, "images_per_cpu_s": 100.0}, {"peak_bytes": 1e9, "images_per_cpu_s": 20.0}
    found = {"encoder": "e", "cpu": "c", "images": images, "step": step, "onnx": onnx, "torch": torch, "sizes": sizes}
    keep_json(tmp_path, "prompts_costs.json", found)
    text = keep(tmp_path, made("PromptFL", 1, 0.5), replace(made("ours", 1, 0.6), costs={"bytes_up": 4200.0}))
    assert (
        "1/2,000 of the encoder's 2,000,000: within the thousandth. Means of all 5 classes have 2,000 bytes, 2.0"
        in text
    )
    assert "ours sends 2.00 times what PromptFL does" in text
    assert "| ours | both | 4.2 | not run | 3.0 |" in text
    assert "from the cache, round 2 on 0.100 (0.200) | 30 times |" in text
    assert "of which the text tower has 80 %" in text
    assert "| torch 1,000 | ONNX 200 | 5.0 times |" in text


def test_leaks_and_cuts_by_hand(tmp_path: Path) -> None:
    keep_json(tmp_path, "prompts_leaks.json", {"leaks": [{"noise": 0.1, "found": 0.98, "chance": 0.3, "n_means": 9}]})
    cut = {"name": "float16", "bytes_up": 500.0, "bytes_down": 1500.0, "accuracy": 0.9}
    keep_json(tmp_path, "prompts_cuts.json", {"cuts": [cut]})
    text = pages.write("prompts", tmp_path)[0].read_text()
    assert "| 0.1 | 98 | 30 |" in text
    assert "| float16 | 0.50 | 1.50 | 90.00 |" in text


def test_central_coop_beside_the_readme(tmp_path: Path) -> None:
    run = made("CoOp", 1, *(0.51 for _ in range(5)), metric="accuracy")
    text = keep(tmp_path, run, experiment="prompts_central")
    assert "| 5 | 51.0 | 52.5 |" in text
    assert "at most 1.5 points apart" in text


def test_features_by_hand(tmp_path: Path) -> None:
    pair = {"silhouette": 0.1, "neighbours": 0.5}
    found = {"n_images": 9, **dict.fromkeys(("static", "trained", "own_static", "own_trained"), pair)}
    keep_json(tmp_path, "prompts_features.json", found)
    text = pages.write("prompts", tmp_path)[0].read_text()
    assert "| all test images | 0.100 | 0.100 | 50.0 | 50.0 |" in text
    assert "the classes lie no further apart" in text


@pytest.mark.parametrize("name", [name for name, _ in prompts.DATA])
def test_the_experiments_have_the_rows_that_the_page_asks_for(name: str) -> None:
    _, text = experiment.find(name)
    file = runfile.parse(text, name)
    labels = {variant.label for variant in runfile.expand(file)}
    spread = (
        *measures.HEADLINE,
        *measures.VARIANTS,
        measures.NO_MEANS,
        measures.BLENDED,
        "ours, lambda 0",
        measures.BARE,
    )
    assert {label + tail for label in spread for _, tail in measures.SPLITS} <= labels
    kinds = (measures.NO_MEANS, "ours", measures.BLENDED)
    assert {f"{kind}, {n} shots" for kind in kinds for n in prompts.SHOTS[name][:-1]} <= labels
    assert measures.HELD_OUT in labels
    learned = [row for row in file.row if row.label in measures.HEADLINE[1:]]
    assert len(learned) == 4
    assert all(len(row.seeds) == 3 for row in learned)


def test_held_out_data_hide_no_test_images() -> None:
    """Each round is measured on both, in either order; 0.5 of 0.9 is under the 95 % that the second round reaches."""
    run = made("ours", 1, 0.5, 0.9)
    held_out = [Measured(m.round, "merged", {"personal_accuracy_holdout": 0.1}, 10) for m in run.measured]
    pairs = zip(run.measured, held_out, strict=True)
    both = replace(run, measured=tuple(m for pair in pairs for m in pair))
    assert (measures.accuracy(both), measures.last_five(both), measures.rounds_to(both)) == (0.9, 0.7, 2.0)
