"""Deliberately broken methods, each with the check of the contract that must catch it."""

import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.methods import fedavg
from tests.methods import contract
from tests.methods.contract import Case, Folders

PLAIN = Case("plain", fedavg.Config())
OWN_HEAD = Case("own head", fedavg.Config(), head="agent", keeps_memory=True)
REMEMBERS = replace(PLAIN, keeps_memory=True)


def mutant(name: str) -> Any:
    return importlib.import_module(f"tests.methods.mutants.{name}")


@pytest.mark.parametrize("name", ["unread_task_field", "unread_reply_field"])
def test_a_field_that_nobody_reads_is_caught(name: str, folders: Folders) -> None:
    with pytest.raises(AssertionError, match="never reads"):
        contract.every_field_is_read(mutant(name), [PLAIN], folders)


@pytest.mark.parametrize(
    ("name", "check", "case", "text"),
    [
        ("forgotten_memory", contract.memory_changes_where_declared, OWN_HEAD, "memory changed"),
        ("impure_plan", contract.planning_is_pure, PLAIN, "made twice differs"),
        ("assumes_memory", contract.faults_are_survived, REMEMBERS, "None"),
        ("counts_rounds", contract.faults_are_survived, PLAIN, "a step went missing"),
    ],
)
def test_broken_in_one_fleet(name: str, check: Callable[..., None], case: Case, text: str, tmp_path: Path) -> None:
    with pytest.raises((AssertionError, AttributeError, TypeError), match=text):
        check(mutant(name), case, tmp_path)


@pytest.mark.parametrize(
    ("name", "check", "text"),
    [
        ("counts_calls", contract.arrival_does_not_matter, "State depends on the order"),
        ("predict_draws", contract.evaluation_changes_nothing, "random streams|State"),
        ("predict_remembers", contract.evaluation_changes_nothing, "State depends on evaluation"),
        ("ignores_rounding", contract.float16_both_ways, "trained from another model"),
    ],
)
def test_broken_between_fleets(name: str, check: Callable[..., None], text: str, folders: Folders) -> None:
    with pytest.raises(AssertionError, match=text):
        check(mutant(name), PLAIN, folders)


def test_an_import_of_the_server_is_caught() -> None:
    with pytest.raises(AssertionError, match="server"):
        contract.nothing_heavy_is_imported(["tests.methods.mutants.loads_server"])


def test_the_sound_original_passes_what_the_mutants_fail(tmp_path: Path, folders: Folders) -> None:
    contract.every_field_is_read(fedavg, [PLAIN, OWN_HEAD], folders)
    contract.memory_changes_where_declared(fedavg, OWN_HEAD, tmp_path)
