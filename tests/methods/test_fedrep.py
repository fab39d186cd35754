"""FedRep by hand (see test_fedavg.py): one epoch on the head, then two on the trunk.

Heads: a 1, b 3, as in FedPer. Trunks: a 0 -> 1 -> 1.5, b 0 -> 3 -> 4.5; mean (1.5 + 3 * 4.5) / 4 = 3.75.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from common.methods import fedrep
from tests.methods import test_fedavg
from tests.methods.contract import Case, loopback

CASES = (
    Case("plain", fedrep.Config(), keeps_memory=True),
    Case("own heads and batch norm", fedrep.Config(bn="local"), head="agent", keeps_memory=True),
)


@pytest.mark.parametrize(("body_epochs", "trunk"), [(2, 3.75), (0, 0.0)])
def test_a_round_by_hand(body_epochs: int, trunk: float, tmp_path: Path) -> None:
    fleet = loopback(fedrep, replace(test_fedavg.BY_HAND, config=fedrep.Config(body_epochs)), tmp_path).rounds(1)
    assert fleet.state.weights["trunk.weight"] == [trunk]
    assert fleet.memory("a").own["classifier.weight"] == [1.0]
    assert fleet.memory("b").own["classifier.weight"] == [3.0]


def test_epochs_cannot_be_negative() -> None:
    with pytest.raises(ValueError, match="body_epochs must not be negative, got -1"):
        fedrep.Config(-1)
