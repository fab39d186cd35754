"""Ditto by hand (see test_fedavg.py), lambda = 1, lr 0.5, one step a round; the common model is FedAvg's.

Round 1, from 0 and held to 0: a's own model 1, b's 3. Round 2, held to 2.5: a 1 + .5 (2 - 1) - .5 (1 - 2.5) = 2.25,
b 3 + .5 (6 - 3) - .5 (3 - 2.5) = 4.25.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from common.methods import ditto
from tests.methods import test_fedavg
from tests.methods.contract import Case, loopback

CASES = (
    Case("plain", ditto.Config(), keeps_memory=True),
    Case("own heads and batch norm", ditto.Config(own_epochs=1, bn="local"), head="agent", keeps_memory=True),
)
BY_HAND = replace(test_fedavg.BY_HAND, config=ditto.Config(strength=1.0))


def test_two_rounds_by_hand(tmp_path: Path) -> None:
    fleet = loopback(ditto, BY_HAND, tmp_path).rounds(2)
    assert fleet.state.weights["trunk.weight"] == [3.75]
    assert fleet.memory("a").own["trunk.weight"] == [2.25]
    assert fleet.memory("b").own["trunk.weight"] == [4.25]


def test_it_predicts_with_both_models(tmp_path: Path) -> None:
    fleet = loopback(ditto, BY_HAND, tmp_path).rounds(1).rounds(1, evaluate=True)
    assert fleet.predictions["b", "start", 1]["personal"][0].tolist() == [3.0, 3.0]
    assert fleet.predictions["b", "trained", 1]["personal"][0].tolist() == [4.25, 4.25]
    assert fleet.predictions["b", "merged", 1]["model"][0].tolist() == [3.75, 3.75]


def test_strength_must_be_a_number_from_zero_up() -> None:
    with pytest.raises(ValueError, match="strength must be finite and at least 0, got -1"):
        ditto.Config(strength=-1)
