import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import condensed, pages
from benchmarks.__main__ import main
from benchmarks.condensed import Condensed, Measured, Round, Run
from benchmarks.pages import _parts as parts
from benchmarks.table import pooled
from common.errors import UnknownName

RUN = Run("FedAvg", "fedavg", 42, "", "done", 60.0, {}, (), ())


def curve(label: str, seed: int, start: float, **changes: float) -> Run:
    """60 rounds: accuracy before training `start`, after it 0.9; 6 personal entries, 4 of them in the classifier."""
    counts = {"personal": 6.0, "personal classifier.weight": 4.0, "personal base.conv1.weight": 2.0}
    counts["personal as values (bytes)"] = 48.0
    metrics = {"accuracy_start": start, "accuracy_trained": 0.9}
    rounds = tuple(Round(n, 1.5, metrics, 1.2, counts if "OBP" in label else {}) for n in range(1, 61))
    measured = [Measured(n, "merged", {"accuracy": changes.get("merged", 0.5)}, 40) for n in (20, 40, 60)]
    measured.append(Measured(60, "finetuned", {"accuracy_finetuned": changes.get("finetuned", 0.8)}, 40))
    return replace(RUN, label=label, seed=seed, rounds=rounds, measured=tuple(measured))


def keep(folder: Path, name: str, *runs: Run) -> None:
    condensed.save(Condensed(name, "abc", {}, {"cores": 2}, runs), folder / f"{name}.json")


def line(text: str, begin: str) -> str:
    return next(row for row in text.splitlines() if row.startswith(begin))


def test_without_results_every_figure_is_said_not_to_have_been_run(tmp_path: Path) -> None:
    (path,) = pages.write("fedobp", tmp_path)
    text = path.read_text()
    assert line(text, "| FedPer | 0 |").count(parts.NOT_RUN) == 3
    assert "Scoring on the server: not run" in text
    assert "![" not in text  # no picture that is not there


def test_what_was_run_stands_beside_what_is_published(tmp_path: Path) -> None:
    runs = [curve("FedAvg", seed, 0.4, merged=value) for seed, value in ((42, 0.5), (43, 0.6))]
    keep(tmp_path, "fedobp_fashion_mnist", *runs, curve("FedOBP, q = .997", 42, 0.7, merged=0.75, finetuned=0.8))
    written = pages.write("fedobp", tmp_path)
    text = written[0].read_text()
    assert (
        line(text, "| FedAvg | 2 |") == "| FedAvg | 2 | 55.00 ± 7.07 | 80.00 ± 0.00 | 40.00 ± 0.00 |  | 88.06 / 96.97 |"
    )
    assert line(text, "| FedOBP, q = .997 | 1 |").startswith("| FedOBP, q = .997 | 1 | 75.00 | 80.00 | 70.00 | 6 |")
    assert "Of the 20.00 points between the first two, fine-tuning FedAvg gives 25.00" in text
    assert "with both fine-tuned +0.00 remain. The first of all 2 rows is FedOBP, q = .997 with 75.00." in text
    assert line(text, "| 40 agents, FedOBP, q = .997 | 6.0 |") == "| 40 agents, FedOBP, q = .997 | 6.0 | 2.0 | 4.0 |"
    assert [path.name for path in written] == ["fedobp.md", "fedobp_personal.png"]
    assert all(path.stat().st_size > 1000 for path in written)


def test_the_noise_floor_is_the_distance_between_two_runs(tmp_path: Path) -> None:
    keep(tmp_path, "fedobp_parity", curve("FedAvg", 42, 0.40, merged=0.5), curve("FedAvg", 43, 0.42, merged=0.47))
    text = pages.write("fedobp", tmp_path)[0].read_text()
    assert "FedAvg: 2.00, 2.00, 2.00, 3.00." in text
    assert line(text, "| FedAvg | 40.00 / 90.00").endswith("| 50.00 | 50.00 | 50.00 |")


def test_accuracy_is_that_of_test_data_where_held_out_data_were_measured_too() -> None:
    run = curve("FedAvg", 42, 0.4, merged=0.5)
    held_out = [replace(m, metrics={"accuracy_holdout": 0.9}) for m in run.measured]
    assert parts.last("merged")(replace(run, measured=(*run.measured, *held_out))) == 0.5


def test_a_method_with_own_models_beside_a_common_one_is_shown_by_its_own() -> None:
    both = {"accuracy": 0.5, "personal_accuracy_weighted": 0.9}
    assert pooled(both, "accuracy") == 0.9
    assert (
        pooled({"accuracy": 0.5, "personal_accuracy": 0.4}, "accuracy") == 0.5
    )  # FedAvg's mean over agents is no model
    assert parts.during({f"{name}_start": value for name, value in both.items()}, "start") == 0.9


def test_a_run_that_failed_is_not_shown(tmp_path: Path) -> None:
    keep(tmp_path, "fedobp_fashion_mnist", replace(curve("FedAvg", 42, 0.4), status="failed"))
    assert "| FedAvg | 0 | not run" in pages.write("fedobp", tmp_path)[0].read_text()


def test_the_command_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["page", "fedobp", str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "fedobp.md")


def test_an_unknown_page_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="unknown page 'fedopb'; did you mean 'fedobp'"):
        pages.write("fedopb", tmp_path)


def test_the_page_that_is_kept_says_what_the_files_beside_it_say(tmp_path: Path) -> None:
    kept = Path(__file__).parents[2] / "docs" / "experiments"
    for path in kept.glob("fedobp*.json"):
        shutil.copy(path, tmp_path)
    written = pages.write("fedobp", tmp_path)
    assert written[0].read_text() == (kept / "fedobp.md").read_text(), "run: fed-bench page fedobp"
    assert {path.name for path in written} <= {path.name for path in kept.iterdir()}
