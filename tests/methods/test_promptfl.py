"""PromptFL: prompts average by samples, only they travel."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from common import prompts
from common.errors import ConfigError, RemoteFault
from common.method import Scalar, Training
from common.methods import promptfl
from common.payloads import Prompt
from tests.methods import recorded
from tests.methods.contract import Case, loopback
from tests.methods.loopback import AGENTS
from tests.methods.tiny import TinyModel
from tests.methods.tiny_prompts import PromptLearner, PromptModel

PROMPTED = {"model": PromptModel(), "learner": PromptLearner}
CASES = (
    Case("plain", promptfl.Config(), **PROMPTED),
    Case("uniform", promptfl.Config(weighting="uniform"), **PROMPTED),
)


def of(value: float) -> Prompt:
    return Prompt(np.full((1, 2, 3), value, np.float32))


def test_the_average_of_two_agents_is_by_samples() -> None:
    mean = prompts.mean_prompt([("a", 1, of(2.0)), ("b", 3, of(6.0))], like=of(0.0))
    np.testing.assert_array_equal(mean.context, of(5.0).context)


def test_uniform_gives_each_agent_one_voice(tmp_path: Path) -> None:
    fleet = loopback(promptfl, CASES[1], tmp_path).rounds(1)
    sent = np.stack([fleet.replies[name].prompt.context for name in AGENTS])
    np.testing.assert_allclose(fleet.state.prompt.context, sent.mean(0), atol=1e-7)


def test_each_agent_keeps_what_it_trained_and_not_what_another_did(tmp_path: Path) -> None:
    """Averages of aliased tensors are all the last agent's: ours differ, and none equals the mean."""
    fleet = loopback(promptfl, CASES[0], tmp_path).rounds(1)
    sent = [fleet.replies[name].prompt.context for name in AGENTS]
    everything = [*sent, fleet.state.prompt.context]
    assert len({array.tobytes() for array in everything}) == 4


def test_an_adapter_is_not_trained_since_the_prompt_alone_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def adapted(n_classes: int, **variant: Scalar) -> PromptLearner:
        return PromptLearner(n_classes, adapter=True, **variant)

    asked = recorded.of_sites(monkeypatch)
    case = Case("adapter", promptfl.Config(), model=PromptModel({"adapter": True}), learner=adapted)
    fleet = loopback(promptfl, case, tmp_path).rounds(1)
    assert len(asked.fits) == len(AGENTS)
    for name, fit in zip(AGENTS, asked.fits, strict=True):
        trained = fit.fitted.weights
        assert [n for n in fit.start if not np.array_equal(fit.start[n], trained[n])] == ["prompt.context"]
        np.testing.assert_array_equal(fleet.replies[name].prompt.context, trained["prompt.context"])


def test_a_model_without_prompts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"promptfl learns prompts: it needs \[model\] name = 'prompted'"):
        loopback(promptfl, Case("no prompts", promptfl.Config(), model=TinyModel()), tmp_path)


def test_a_prompt_of_another_length_is_refused_by_name(tmp_path: Path) -> None:
    fleet = loopback(promptfl, CASES[0], tmp_path).rounds(1)
    longer = promptfl.Reply(Prompt(np.zeros((1, 5, 3), np.float32)), 4)
    info = fleet.info("anna")
    with pytest.raises(
        RemoteFault, match=r"agent anna: tensor 'prompt.context' has another shape, expected \[1, 2, 3\]"
    ):
        promptfl.merge(fleet.run, fleet.state, iter([(info, longer)]), None)  # type: ignore[arg-type]


def test_an_earlier_prompt_is_taken_and_one_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    start = {"prompt": of(9.0)}
    case = Case("from", promptfl.Config(), training=Training(epochs=0), start=start, **PROMPTED)
    assert float(loopback(promptfl, case, tmp_path).rounds(1).state.prompt.context[0, 0, 0]) == 9.0
    other = {"prompt": Prompt(np.zeros((1, 2, 5), np.float32))}
    with pytest.raises(ConfigError, match=r"must be a prompt of \[1, 2, 3\], got \[1, 2, 5\]"):
        loopback(promptfl, dataclasses.replace(case, start=other), tmp_path)
