from pathlib import Path

import pytest

from benchmarks import by_task
from benchmarks.results import EvaluatedAgent, EvaluationRow, Results, RunRow, save
from common.errors import EXIT_CONFIG


def run(label: str, seed: int, curve: dict[int, tuple[int, int]]) -> RunRow:
    """Flowers right of 10 on each of two agents together, scenes right of 4."""
    evaluations = []
    for number, (flowers, scenes) in curve.items():
        agents = (
            EvaluatedAgent("a", "flowers", 5, "personal", min(flowers, 5)),
            EvaluatedAgent("b", "flowers", 5, "personal", flowers - min(flowers, 5)),
            EvaluatedAgent("c", "scenes", 4, "personal", scenes),
        )
        evaluations.append(EvaluationRow(number, "merged", "all", "test", agents, {}))
        evaluations.append(EvaluationRow(number, "start", "all", "test", (), {}))
    return RunRow(label, "task_heads", seed, {}, "done", {}, (), tuple(evaluations), stage="full")


FOUND = Results(
    "ssl", "", {}, {},
    (
        run("scratch", 1, {1: (2, 1), 2: (4, 2), 3: (6, 2)}),
        run("scratch", 2, {1: (3, 1), 2: (6, 2), 3: (8, 2)}),
        run("ssl", 1, {1: (6, 1), 2: (7, 1), 3: (9, 1)}),
    ),
)  # fmt: skip


def test_accuracy_by_task_over_seeds_and_rounds_until_near_a_row() -> None:
    """From scratch flowers end at 60 and 80, so 66.5 % is near; of scenes 47.5 %."""
    lines = by_task.markdown(FOUND, ("scratch", "full")).splitlines()
    assert lines[0] == "| row | stage | flowers | scenes | flowers, rounds to 95 % | scenes, rounds to 95 % | seeds |"
    assert lines[2] == "| scratch | full | 70.00 ± 14.14 | 50.00 ± 0.00 | - | 2.0 | 2 |"
    assert lines[3] == "| ssl | full | 90.00 | 25.00 | 2.0 | - | 1 |"


def test_an_unknown_row_names_those_that_are_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(FOUND, tmp_path / "results.json")
    assert by_task.main([str(tmp_path)]) == 0
    assert "70.00 ± 14.14" in capsys.readouterr().out
    assert by_task.main([str(tmp_path), "--near", "CL/full"]) == EXIT_CONFIG
    assert "no finished row and stage 'CL/full'; there are scratch/full, ssl/full" in capsys.readouterr().err
