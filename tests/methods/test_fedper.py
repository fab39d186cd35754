"""FedPer by hand (see test_fedavg.py): trunks average to 2.5, then 3.75; heads stay, a's 1 then 1.5, b's 3 then 4.5."""

from dataclasses import replace
from pathlib import Path

from common.methods import fedper
from tests.methods import test_fedavg
from tests.methods.closed_form import constant
from tests.methods.contract import Case, loopback

CASES = (
    Case("plain", fedper.Config(), keeps_memory=True),
    Case("own heads", fedper.Config(newcomers="average"), head="agent", keeps_memory=True),
    Case("own heads and batch norm", fedper.Config("average", bn="local"), head="agent", keeps_memory=True),
    Case("heads averaged for newcomers", fedper.Config(newcomers="average", bn="local"), keeps_memory=True),
)
BY_HAND = replace(test_fedavg.BY_HAND, config=fedper.Config())


def test_two_rounds_by_hand(tmp_path: Path) -> None:
    fleet = loopback(fedper, BY_HAND, tmp_path).rounds(1)
    assert fleet.state.weights["trunk.weight"] == [2.5]
    assert "classifier.weight" not in fleet.state.weights
    fleet.rounds(1)
    assert fleet.state.weights["trunk.weight"] == [3.75]
    assert fleet.memory("a").own["classifier.weight"] == [1.5]
    assert fleet.memory("b").own["classifier.weight"] == [4.5]
    assert fleet.state.first["classifier.weight"] == [0.0]


def test_a_newcomer_starts_with_the_mean_head_on_request(tmp_path: Path) -> None:
    fleet = loopback(fedper, replace(BY_HAND, config=fedper.Config(newcomers="average")), tmp_path).rounds(1)
    assert fleet.state.first["classifier.weight"] == [2.5]
    fleet.data["c"], fleet.reports["c"] = constant(1, 2.5), {}
    fleet.rounds(1)
    assert fleet.memory("c").own["classifier.weight"] == [2.5]
    assert fleet.memory("a").own["classifier.weight"] == [1.5]


def test_an_agents_own_head_never_goes_up(tmp_path: Path) -> None:
    fleet = loopback(fedper, CASES[1], tmp_path).rounds(1)
    assert all(reply.own is None for reply in fleet.replies.values())
