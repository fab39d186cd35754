"""The contract, over every method found and every configuration that its own test names in CASES."""

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest

from common import methods
from tests.methods import contract
from tests.methods.contract import Case, Folders


def cases(name: str) -> tuple[Case, ...]:
    module = importlib.import_module(f"tests.methods.test_{name}")
    found: tuple[Case, ...] = module.CASES
    return found


CASES = [pytest.param(name, case, id=f"{name}-{case}") for name in methods.names() for case in cases(name)]
ONE_FOLDER = (
    contract.memory_changes_where_declared,
    contract.planning_is_pure,
    contract.faults_are_survived,
    contract.a_lost_reply_leaves_no_trace,
)
SEVERAL_FOLDERS = (
    contract.arrival_does_not_matter,
    contract.evaluation_changes_nothing,
    contract.float16_both_ways,
)


@pytest.mark.parametrize("name", methods.names())
def test_every_field_that_one_half_writes_is_read_by_the_other(name: str, folders: Folders) -> None:
    contract.every_field_is_read(methods.load(name), cases(name), folders)


@pytest.mark.parametrize("check", ONE_FOLDER, ids=lambda check: check.__name__)
@pytest.mark.parametrize(("name", "case"), CASES)
def test_every_method_keeps(check: Callable[..., None], name: str, case: Case, tmp_path: Path) -> None:
    check(methods.load(name), case, tmp_path)


@pytest.mark.parametrize("check", SEVERAL_FOLDERS, ids=lambda check: check.__name__)
@pytest.mark.parametrize(("name", "case"), CASES)
def test_for_every_method(check: Callable[..., None], name: str, case: Case, folders: Folders) -> None:
    check(methods.load(name), case, folders)


def test_no_method_loads_the_server_or_torch_into_an_agent() -> None:
    contract.nothing_heavy_is_imported([f"common.methods.{name}" for name in methods.names()])


@pytest.mark.parametrize("name", methods.names())
def test_a_method_fits_on_a_page_and_names_its_source(name: str) -> None:
    module = methods.load(name)
    text = Path(str(module.__file__)).read_text()  # type: ignore[attr-defined]
    assert len(text.splitlines()) <= 150
    for word in ("Source:", "Deviation"):
        assert word in str(module.__doc__), f"{name} has no {word} in its docstring"
