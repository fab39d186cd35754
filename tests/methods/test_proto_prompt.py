"""Prototype-based prompt learning: what travels, what stays, and what each option leaves out."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common import blending
from common.errors import RemoteFault
from common.methods import proto_prompt
from common.methods.proto_prompt import Config
from common.payloads import Prompt, Prototypes, Weights
from common.prototypes import Privacy, blended, nearest
from tests.methods.contract import Case, loopback
from tests.methods.loopback import AGENTS, Data, make_data
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
    case("blend by held-out data", blend_by="holdout"),
    case("adapter averaged too", keeps_memory=False, share_adapter=True),
    case("class means drawn to means", of="means"),
)


def test_prompts_and_means_travel_the_adapter_stays(tmp_path: Path) -> None:
    fleet = loopback(proto_prompt, FULL, tmp_path).rounds(2)
    for name in AGENTS:
        kinds = {field: type(value) for field, value in vars(fleet.replies[name]).items()}
        assert kinds == {"prompt": Prompt, "adapter": type(None), "prototypes": Prototypes, "n_samples": int}
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


def test_an_averaged_adapter_is_the_mean_of_the_agents_by_samples(tmp_path: Path) -> None:
    fleet = loopback(proto_prompt, case("x", keeps_memory=False, share_adapter=True), tmp_path).rounds(1)
    replies = [fleet.replies[name] for name in AGENTS]
    sent = [reply.n_samples * reply.adapter["adapter.fc2.weight"].astype(np.float64) for reply in replies]
    expected = sum(sent) / sum(reply.n_samples for reply in replies)
    np.testing.assert_allclose(fleet.state.adapter["adapter.fc2.weight"], expected, atol=1e-7)
    assert all(fleet.memory(name).own is None for name in AGENTS)
    assert proto_prompt.result(fleet.run, fleet.state)["adapter"] is fleet.state.adapter


def test_an_adapter_that_is_not_there_cannot_be_averaged() -> None:
    with pytest.raises(ValueError, match="share_adapter is true and there is no adapter"):
        Config(adapter=False, share_adapter=True)


def test_the_share_that_suits_held_out_data_by_hand() -> None:
    """Two images of classes 0 and 1. The texts' scores say 1 and 1, the means say 0 and 0, each by a margin of 4.

    With share s the margin for class 0 is 4 (2 s - 1) for both, and the losses log(1 + e^-m) + log(1 + e^m) are least,
    2 ln 2, at m = 0, s = 1/2. With class 0 alone the largest share is best, and without means none is chosen.
    """
    text, near = np.array([[0.0, 4.0]] * 2), np.array([[4.0, 0.0]] * 2)
    known = Prototypes(np.array([0, 1]), np.array([1, 1]), np.eye(2, dtype=np.float32))
    assert blending.best_share(text, near, known, np.array([0, 1])) == 0.5
    assert blending.best_share(text[:1], near[:1], known, np.array([0])) == 1.0
    assert blending.best_share(text[:1], near[:1], known, np.array([1])) == 0.0
    assert blending.best_share(text, text, known, np.array([0, 1])) == 0.0  # no difference: the texts'


def test_a_share_by_held_out_data_is_kept_and_used_and_never_travels(tmp_path: Path) -> None:
    fleet = loopback(proto_prompt, CASES[6], tmp_path).rounds(1)
    assert all(fleet.memory(name).blend is None for name in AGENTS)  # there were no means yet
    fleet.rounds(1, evaluate=True)
    for name in AGENTS:
        share = fleet.memory(name).blend
        assert share in blending.SHARES
        site, task = fleet.site(name, 2, "look"), fleet.tasks[name]
        weights = personal_weights(fleet, name)
        learner = PromptLearner(4, adapter=True)
        held = site.data.holdout
        near = nearest(learner.embed(weights, held), task.prototypes, 4, 28.0)
        assert share == blending.best_share(learner.scores(weights, held), near, task.prototypes, held.labels)
        readings = fleet.predictions[name, "trained", 1]
        assert set(vars(fleet.replies[name])) == {"prompt", "adapter", "prototypes", "n_samples"}
        text = learner.scores(weights, site.data.test)
        expected = blended(text, readings["nearest"], task.prototypes, share)
        np.testing.assert_allclose(readings["personal"], expected, atol=1e-5)


def personal_weights(fleet: Any, name: str) -> Any:
    """What the agent had at the end of its training."""
    reply, memory = fleet.replies[name], fleet.memory(name)
    return memory.own.updated(Weights({"prompt.context": reply.prompt.context}))


def test_without_held_out_data_the_share_is_the_given_one(tmp_path: Path) -> None:
    def nothing_held_out() -> dict[str, Data]:
        return {name: replace(data, holdout=data.train.take(np.arange(0))) for name, data in make_data().items()}

    one = replace(case("none held out", blend_by="holdout", blend=0.5), data=nothing_held_out)
    fleet = loopback(proto_prompt, one, tmp_path / "a").rounds(2, evaluate=True)
    fixed = loopback(proto_prompt, case("fixed", blend=0.5), tmp_path / "b").rounds(2, evaluate=True)
    for moment, readings in fixed.predictions.items():
        np.testing.assert_array_equal(fleet.predictions[moment]["personal"], readings["personal"])


def test_rare_classes_are_held_back(tmp_path: Path) -> None:
    fleet = loopback(proto_prompt, CASES[5], tmp_path).rounds(1)
    for name in AGENTS:
        counts, sent = fleet.data[name].train.counts(), fleet.replies[name].prototypes
        expected = np.flatnonzero(counts >= 2)
        assert (sent is None and not len(expected)) or sent.class_ids.tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("prompt", "sent", "says"),
    [
        ((1, 2, 3), ([0], [1], (1, 4)), "prototypes do not fit the run, expected 1 vectors of 3"),
        ((1, 2, 3), ([0], [0], (1, 3)), "counts of at least 1"),
        ((1, 5, 3), ([0], [1], (1, 3)), r"'prompt.context' has another shape, expected \[1, 2, 3\], got \[1, 5, 3\]"),
        ((1, 2, 9), ([0], [1], (1, 3)), r"'prompt.context' has another shape, expected \[1, 2, 3\], got \[1, 2, 9\]"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    tmp_path: Path, prompt: tuple[int, ...], sent: tuple[list[int], list[int], tuple[int, ...]], says: str
) -> None:
    fleet = loopback(proto_prompt, FULL, tmp_path)
    ids, counts, shape = sent
    means = Prototypes(np.array(ids), np.array(counts), np.ones(shape, np.float32))
    reply = proto_prompt.Reply(Prompt(np.zeros(prompt, np.float32)), None, means, 4)
    with pytest.raises(RemoteFault, match=f"agent anna: .*{says}"):
        proto_prompt.merge(fleet.run, fleet.state, iter([(fleet.info("anna"), reply)]), None)  # type: ignore[arg-type]


def test_an_agent_that_trains_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to train"):
        Config(adapter=False, learn_prompt=False)
