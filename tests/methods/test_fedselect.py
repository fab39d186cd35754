"""FedSelect by hand (see test_fedavg.py): of two entries one becomes personal a round, at most one of two.

Round 1 is FedAvg, common (2.5, 2.5); both entries moved alike, so the first, t, becomes personal: a's 1, b's 3.
Round 2: a from (1, 2.5) to (1.5, 2.25), b from (3, 2.5) to (4.5, 4.25). Nobody shares t, it stays 2.5;
v = (2.25 + 3 * 4.25) / 4 = 3.75.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.methods import fedselect
from common.payloads import Weights
from tests.methods import test_fedavg
from tests.methods.contract import Case, loopback

CASES = (
    Case("plain", fedselect.Config(rate=0.2), keeps_memory=True),
    Case("own heads and batch norm", fedselect.Config(rate=0.3, bn="local"), head="agent", keeps_memory=True),
)
BY_HAND = replace(test_fedavg.BY_HAND, config=fedselect.Config(rate=0.5, limit=0.5))


def test_two_rounds_by_hand(tmp_path: Path) -> None:
    fleet = loopback(fedselect, BY_HAND, tmp_path).rounds(1)
    assert fleet.state.weights["trunk.weight"] == fleet.state.weights["classifier.weight"] == [2.5]
    fleet.rounds(1)
    assert fleet.state.weights["trunk.weight"] == [2.5]
    assert fleet.state.weights["classifier.weight"] == [3.75]
    assert fleet.memory("a").weights["trunk.weight"] == [1.5]
    assert fleet.counts["a"]["personal"] == 1


def test_the_entries_that_moved_most_are_added_up_to_the_limit() -> None:
    before = Weights({"w": np.zeros(4, np.float32), "n": np.array([5])}, {"n": "counter"})
    after = Weights({"w": np.array([1, -9, 3, 2], np.float32), "n": np.array([9])}, {"n": "counter"})
    first = fedselect.grown({}, before, after, 0.25, 0.5)
    assert first["w"].tolist() == [False, True, False, False]
    second = fedselect.grown(first, before, after, 0.25, 0.5)
    assert second["w"].tolist() == [False, True, True, False]
    assert fedselect.grown(second, before, after, 0.25, 0.5)["w"].tolist() == second["w"].tolist()
    assert "n" not in first


def test_shares_must_be_shares() -> None:
    with pytest.raises(ValueError, match=r"rate and limit must be in \[0, 1\], got rate 2"):
        fedselect.Config(rate=2)
