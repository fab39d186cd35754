"""Prototype-based prompt learning: what travels, what stays, and what each option leaves out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.methods import proto_prompt
from common.methods.proto_prompt import Config
from common.payloads import Prompt, Prototypes
from common.prototypes import Privacy
from tests.methods.contract import Case, loopback
from tests.methods.loopback import AGENTS
from tests.methods.tiny_prompts import PromptLearner, PromptModel


def case(name: str, *, keeps_memory: bool = True, **options: Any) -> Case:
    return Case(name, Config(**options), model=PromptModel(), learner=PromptLearner, keeps_memory=keeps_memory)


FULL = case("full")
CASES = (
    FULL,
    case("local prompts", share_prompt=False),
    case("adapter only", learn_prompt=False),
    case("no exchange", exchange=False),
    case("prompts only, blended, uniform", keeps_memory=False, adapter=False, blend=0.5, weighting="uniform"),
    case("private", privacy=Privacy(min_count=2, clip=0.5, noise=0.01), max_age=1),
)


def test_prompts_and_means_travel_the_adapter_stays(tmp_path: Path) -> None:
    fleet = loopback(proto_prompt, FULL, tmp_path).rounds(2)
    for name in AGENTS:
        kinds = {field: type(value) for field, value in vars(fleet.replies[name]).items()}
        assert kinds == {"prompt": Prompt, "prototypes": Prototypes, "n_samples": int}
        assert list(fleet.memory(name).own) == ["adapter.fc2.weight"]
    np.testing.assert_allclose(np.linalg.norm(fleet.state.known.prototypes.vectors, axis=1), 1, atol=1e-6)


def test_local_prompts_never_travel(tmp_path: Path) -> None:
    fleet = loopback(proto_prompt, CASES[1], tmp_path).rounds(2)
    assert all(fleet.replies[name].prompt is None for name in AGENTS)
    assert len({fleet.memory(name).own["prompt.context"].tobytes() for name in AGENTS}) == 3


def test_without_learned_prompts_none_are_there(tmp_path: Path) -> None:
    fleet = loopback(proto_prompt, CASES[2], tmp_path).rounds(2)
    assert fleet.state.prompt is None
    assert "prompt" not in proto_prompt.result(fleet.run, fleet.state)


def test_without_exchange_no_means_travel(tmp_path: Path) -> None:
    fleet = loopback(proto_prompt, CASES[3], tmp_path).rounds(2)
    assert all(fleet.replies[name].prototypes is None for name in AGENTS)
    assert fleet.state.known.prototypes is None


def test_the_regulariser_is_nought_in_the_first_round_and_works_in_the_second(tmp_path: Path) -> None:
    fleets = [
        loopback(proto_prompt, FULL, tmp_path / "a"),
        loopback(proto_prompt, case("0", strength=0.0), tmp_path / "b"),
    ]
    assert len({fleet.rounds(1).digest(fleet.memory("cleo")) for fleet in fleets}) == 1
    assert len({fleet.rounds(1).digest(fleet.memory("cleo")) for fleet in fleets}) == 2


def test_a_blend_moves_only_classes_that_have_a_mean(tmp_path: Path) -> None:
    blended = loopback(proto_prompt, CASES[4], tmp_path / "a").rounds(1, evaluate=True)
    plain = loopback(proto_prompt, case("plain", keeps_memory=False, adapter=False), tmp_path / "b")
    plain.rounds(1, evaluate=True)
    moment = ("anna", "merged", 0)
    near, text = blended.predictions[moment]["nearest"], plain.predictions[moment]["personal"]
    assert list(blended.state.known.prototypes.class_ids) == [0, 1, 2, 3]
    np.testing.assert_allclose(blended.predictions[moment]["personal"], (near + text) / 2, rtol=1e-4)


def test_rare_classes_are_held_back(tmp_path: Path) -> None:
    fleet = loopback(proto_prompt, CASES[5], tmp_path).rounds(1)
    for name in AGENTS:
        counts, sent = fleet.data[name].train.counts(), fleet.replies[name].prototypes
        expected = np.flatnonzero(counts >= 2)
        assert (sent is None and not len(expected)) or sent.class_ids.tolist() == expected.tolist()


def test_an_agent_that_trains_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to train"):
        Config(adapter=False, learn_prompt=False)
