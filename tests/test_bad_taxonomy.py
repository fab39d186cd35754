"""A taxonomy that cannot be, given to the real programs: the run ends with a sentence that names the node at fault.

The server and its agents go on: the last run is a good one.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from common import errors
from tests.processes import Federation, federation, write_data

GOOD = (("all", "A"), ("all", "2"), ("A", "0"), ("A", "1"))
RUN = """
[run]
method = "hier_moe"
rounds = 2
[method]
{method}
[model]
name = "linear"
input = "6"
[data]
classes = ["0", "1", "2"]
taxonomy = [{edges}]
[evaluation]
every = 2
metrics = ["accuracy", "information_f1"]
"""
BAD = {
    "cycle": ((("x", "y"), ("y", "x")), "", "the taxonomy has a cycle: 'y' <- 'x' <- 'y'"),
    "two-roots": ((*GOOD, ("other", "3")), "", "the taxonomy must have one root, got 2: 'all', 'other'"),
    "orphan": ((*GOOD, ("B", "C"), ("C", "B")), "", "the taxonomy has a cycle: 'C' <- 'B' <- 'C'"),
    "no-class": ((*GOOD, ("A", "z")), "", "leaf 'z' of the taxonomy is no class of the run"),
    "no-leaf": ((*GOOD, ("2", "3")), "", "class '2' is an inner node of the taxonomy"),
    "missing": ((("all", "0"), ("all", "1")), "", "class '2' is not in the taxonomy"),
    "one-child": (
        (*GOOD[:2], ("A", "B"), ("B", "0"), ("B", "1")),
        'only = ["A"]',
        "[method] only names 'A', which has no expert in the taxonomy: it has one child and is collapsed",
    ),
}


def run_file(edges: tuple[tuple[str, str], ...], method: str = "") -> str:
    return RUN.format(method=method, edges=", ".join(f'["{node}", "{child}"]' for node, child in edges))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    folder = tmp_path_factory.mktemp("fleet")
    with federation(folder) as running:
        running.server()
        running.operations()
        running.agent("anna", write_data(folder / "anna.npz", 30, seed=1))
        yield running


@pytest.mark.parametrize("name", BAD)
def test_a_run_with_a_broken_tree_ends_with_the_node_at_fault(fleet: Federation, name: str) -> None:
    edges, method, sentence = BAD[name]
    fleet.submit(run_file(edges, method), name)
    summary = fleet.wait(name).summary
    assert summary.status == "failed", summary
    assert sentence in summary.reason


def test_who_watches_such_a_run_gets_an_exit_code(fleet: Federation, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(run_file(BAD["cycle"][0]))
    words = [sys.executable, "-m", "server", "submit", str(path), "--name", "watched", "--state-dir", str(fleet.state)]
    subprocess.run(words, check=True, timeout=60)
    fleet.wait("watched")
    watch = [sys.executable, "-m", "server", "watch", "watched", "--state-dir", str(fleet.state)]
    ended = subprocess.run(watch, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == errors.EXIT_RUN
    assert BAD["cycle"][2] in ended.stdout + ended.stderr


def test_nothing_is_lost_by_them(fleet: Federation) -> None:
    fleet.submit(run_file(GOOD), "good")
    detail = fleet.finished("good")
    assert [agent.outcome for r in detail.rounds for agent in r.agents] == ["merged", "merged"]


def test_a_budget_that_nothing_fits_ends_the_run_before_it_begins(fleet: Federation) -> None:
    """Where the whole model fits and no expert does, the schedule names the smallest: test_expert_schedule."""
    data = write_data(fleet.folder / "tiny.npz", 30, seed=2)
    fleet.agent("tiny", data, "--memory-budget", "100B", "--tags", "tiny")
    text = run_file(GOOD, 'schedule = "resource_aware"') + '[agents]\ntags = ["tiny"]\n'
    fleet.submit(text, "none-fits")
    summary = fleet.wait("none-fits").summary
    assert summary.status == "failed"
    assert "model 'linear' does not fit agent tiny" in summary.reason
