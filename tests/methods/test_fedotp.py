"""FedOTP: one prompt travels, the other stays."""

from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import ConfigError
from common.methods import fedotp
from tests.methods import recorded
from tests.methods.contract import Case, loopback
from tests.methods.loopback import AGENTS
from tests.methods.tiny_prompts import PromptLearner, PromptModel

CASES = (
    Case(
        "plain",
        fedotp.Config(),
        model=PromptModel(),
        learner=PromptLearner,
        keeps_memory=True,
        options={"features": "dense"},
    ),
)


def test_what_is_personal_stays_and_differs(tmp_path: Path) -> None:
    fleet = loopback(fedotp, CASES[0], tmp_path).rounds(2)
    assert fleet.state.prompt.context.shape == (1, 2, 3)
    assert all(fleet.replies[name].prompt.context.shape == (1, 2, 3) for name in AGENTS)
    owns = [fleet.memory(name).own for name in AGENTS]
    assert all(list(own) == ["prompt.own"] for own in owns)
    assert len({own["prompt.own"].tobytes() for own in owns}) == 3


def test_the_transport_of_the_config_is_trained_and_predicted_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = recorded.of_sites(monkeypatch)
    case = replace(CASES[0], config=fedotp.Config(mass=0.5, smoothing=0.25, iterations=7))
    loopback(fedotp, case, tmp_path).rounds(1, evaluate=True)
    assert asked.every_learner == {"own": True, "mass": 0.5, "smoothing": 0.25, "iterations": 7}


def test_features_of_whole_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="it needs \\[model\\] features = 'dense'"):
        loopback(fedotp, replace(CASES[0], options={}), tmp_path)


def test_numbers_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="0 < mass <= 1"):
        fedotp.Config(mass=1.5)
