"""Zero-shot: the same scores in every round, for every agent; nothing is trained."""

from pathlib import Path

import numpy as np

from common.methods import zero_shot
from tests.methods.contract import Case, loopback
from tests.methods.tiny_prompts import PromptLearner, PromptModel

CASES = (Case("plain", zero_shot.Config(), model=PromptModel(), learner=PromptLearner),)


def test_nothing_changes_over_rounds(tmp_path: Path) -> None:
    fleet = loopback(zero_shot, CASES[0], tmp_path).rounds(2, evaluate=True)
    first, second = (fleet.predictions["anna", "merged", step]["model"] for step in (0, 1))
    np.testing.assert_array_equal(first, second)
    assert zero_shot.result(fleet.run, fleet.state) == {}
