"""Local training by hand: from 0, lr 0.5, an agent of value 2 is at 1, then at 1.5; nobody else matters."""

from dataclasses import replace
from pathlib import Path

from common.methods import local
from tests.methods import test_fedavg
from tests.methods.contract import Case, loopback
from tests.methods.loopback import Faults

CASES = (
    Case("plain", local.Config(), keeps_memory=True),
    Case("own heads", local.Config(), head="agent", keeps_memory=True),
)
BY_HAND = replace(test_fedavg.BY_HAND, config=local.Config())


def test_two_rounds_by_hand(tmp_path: Path) -> None:
    fleet = loopback(local, BY_HAND, tmp_path).rounds(2)
    assert fleet.memory("a").weights["trunk.weight"] == [1.5]
    assert fleet.memory("b").weights["trunk.weight"] == [4.5]


def test_what_was_learnt_stays_when_the_reply_is_lost(tmp_path: Path) -> None:
    fleet = loopback(local, BY_HAND, tmp_path)
    fleet.round(faults=Faults(lost=("a",)))
    fleet.rounds(1)
    assert fleet.memory("a").weights["trunk.weight"] == [1.5]


def test_nothing_goes_up(tmp_path: Path) -> None:
    fleet = loopback(local, BY_HAND, tmp_path).rounds(1)
    assert not fleet.encoded(fleet.replies["a"]).payloads
