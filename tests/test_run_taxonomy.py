from pathlib import Path

import pytest

from common import data_files, experts, run_taxonomy, runfile, taxonomy
from common.errors import ConfigError
from common.method import ModelSpec, RunSpec, Training
from common.payloads import Weights
from common.run_sections import RunFile
from tests.methods.tiny import TinyModel

TEXT = """
[run]
method = "flat_softmax"
rounds = 1

[data]
taxonomy = {taxonomy}
without = {without}
"""
EDGES = (("R", "A"), ("R", "B"), ("A", "a"), ("A", "b"), ("B", "c"), ("B", "d"))


def file(taxonomy: str, without: str = "[]") -> RunFile:
    return runfile.parse(TEXT.format(taxonomy=taxonomy, without=without), "run.toml")


@pytest.mark.parametrize("method", ["flat_softmax", "hier_moe"])
def test_a_tree_is_of_classes_that_mean_the_same_on_all_agents(method: str) -> None:
    run = RunSpec("r", method, None, ModelSpec("linear"), Training(), 1, 1, "agent", ("a", "b", "c", "d"), EDGES)
    with pytest.raises(ConfigError, match=rf"method {method} has one tree for all agents: it needs .* head = 'run'"):
        experts.tree_of(run)


def test_experts_on_a_frozen_trunk_take_no_objective_that_augments() -> None:
    with pytest.raises(ConfigError, match=r"see features, not images: .* got 'cross_entropy_augmented'"):
        experts.trunk_of(TinyModel(), {"trunk": Weights({})}, "cross_entropy_augmented")


def csv(folder: Path) -> Path:
    path = folder / "tree.csv"
    path.write_text("parent,child\n" + "".join(f"{a},{b}\n" for a, b in EDGES))
    return path


def test_edges_in_a_run_file_are_what_they_are() -> None:
    given = file('[["R", "a"], ["R", "b"]]')
    assert run_taxonomy.inlined(given) == given
    assert run_taxonomy.edges(given) == (("R", "a"), ("R", "b"))
    assert run_taxonomy.edges(RunFile(given.run)) is None


def test_a_file_is_found_beside_the_run_file_or_in_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    csv(tmp_path)
    found = run_taxonomy.inlined(file('"tree.csv"'), tmp_path)
    assert run_taxonomy.edges(found) == EDGES
    assert run_taxonomy.edges(runfile.parse(runfile.to_toml(found), "sent")) == EDGES
    monkeypatch.setenv(data_files.FOLDER_VARIABLE, str(tmp_path))
    assert run_taxonomy.edges(run_taxonomy.inlined(file('"tree.csv"'))) == EDGES


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read taxonomy .*missing\.csv"):
        run_taxonomy.inlined(file('"missing.csv"'), tmp_path)


@pytest.mark.parametrize("name", ['"tree.csv"', '"coarse"'])
def test_what_was_not_read_before_the_run_was_submitted_is_an_error_on_the_server(name: str) -> None:
    with pytest.raises(ConfigError, match="was not read before the run was submitted"):
        run_taxonomy.edges(file(name))


def test_classes_that_nobody_has_leave_no_branch_without_classes(tmp_path: Path) -> None:
    csv(tmp_path)
    found = run_taxonomy.inlined(file('"tree.csv"', '["B", "a"]'), tmp_path)
    assert found.data.without == ("a", "c", "d")
    assert run_taxonomy.edges(found) == (("R", "A"), ("A", "b"))
    assert taxonomy.without(EDGES, ()) == EDGES


def test_an_edge_that_is_no_pair_is_named() -> None:
    with pytest.raises(ConfigError, match=r"taxonomy is a list of \[parent, child\] pairs, got \['R'\]"):
        file('[["R"]]')
