"""LG-FedAvg by hand (see test_fedavg.py): FedPer with head and trunk exchanged."""

from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import ConfigError
from common.methods import lg_fedavg
from tests.methods import test_fedavg
from tests.methods.contract import Case, loopback

CASES = (Case("plain", lg_fedavg.Config(), keeps_memory=True),)
BY_HAND = replace(test_fedavg.BY_HAND, config=lg_fedavg.Config())


def test_two_rounds_by_hand(tmp_path: Path) -> None:
    fleet = loopback(lg_fedavg, BY_HAND, tmp_path).rounds(2)
    assert list(fleet.state.weights) == ["classifier.weight"]
    assert fleet.state.weights["classifier.weight"] == [3.75]
    assert fleet.memory("a").own["trunk.weight"] == [1.5]
    assert fleet.memory("b").own["trunk.weight"] == [4.5]


def test_heads_of_their_own_leave_nothing_to_share(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="it needs \\[model\\] head = 'run', got 'agent'"):
        loopback(lg_fedavg, Case("own", lg_fedavg.Config(), head="agent"), tmp_path)
