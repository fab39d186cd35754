"""Zero-shot: the same scores in every round, for every agent; nothing is trained."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import ConfigError
from common.methods import zero_shot
from tests.methods.contract import Case, loopback
from tests.methods.tiny import TinyModel
from tests.methods.tiny_prompts import PromptLearner, PromptModel

CASES = (Case("plain", zero_shot.Config(), model=PromptModel(), learner=PromptLearner),)


@pytest.mark.parametrize("options", [{"adapter": True}, {"context": 0}])
def test_it_needs_neither_context_nor_adapter(options: dict[str, Any], tmp_path: Path) -> None:
    case = replace(CASES[0], model=PromptModel(options), learner=partial(PromptLearner, **options))
    plain, other = (loopback(zero_shot, c, tmp_path / c.name).rounds(1, evaluate=True) for c in (CASES[0], case))
    key = ("anna", "merged", 0)
    np.testing.assert_array_equal(other.predictions[key]["model"], plain.predictions[key]["model"])


def test_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="prompted"):
        loopback(zero_shot, Case("other", zero_shot.Config(), model=TinyModel()), tmp_path)


def test_nothing_changes_over_rounds(tmp_path: Path) -> None:
    fleet = loopback(zero_shot, CASES[0], tmp_path).rounds(2, evaluate=True)
    first, second = (fleet.predictions["anna", "merged", step]["model"] for step in (0, 1))
    np.testing.assert_array_equal(first, second)
    assert zero_shot.result(fleet.run, fleet.state) == {}
