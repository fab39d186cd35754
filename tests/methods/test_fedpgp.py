"""FedPGP: the common prompt travels, U and V never do."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.methods import fedpgp
from tests.methods import recorded
from tests.methods.contract import Case, loopback
from tests.methods.loopback import AGENTS
from tests.methods.tiny_prompts import PromptLearner, PromptModel

PROMPTED = {"model": PromptModel(), "learner": PromptLearner, "keeps_memory": True}
CASES = (
    Case("plain", fedpgp.Config(rank=2), **PROMPTED),
    Case("placeholder", fedpgp.Config(temperature=0.25, rank=1, anchor="placeholder"), **PROMPTED),
    Case("no contrast", fedpgp.Config(strength=0.0, rank=1), **PROMPTED),
)


def test_what_is_personal_stays(tmp_path: Path) -> None:
    fleet = loopback(fedpgp, CASES[0], tmp_path).rounds(2)
    assert fleet.state.prompt.context.shape == (1, 2, 3)
    owns = [fleet.memory(name).own for name in AGENTS]
    assert all(list(own) == ["prompt.u", "prompt.v"] for own in owns)
    assert len({own["prompt.u"].tobytes() for own in owns}) == 3


def test_an_agent_starts_from_its_own_draw(tmp_path: Path) -> None:
    fleet = loopback(fedpgp, CASES[0], tmp_path)
    draws = [fleet.site(name, 1, "work").initial(PromptLearner(4, rank=2), "prompt")["prompt.u"] for name in AGENTS]
    assert len({draw.tobytes() for draw in draws}) == 3


def test_numbers_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="temperature > 0"):
        fedpgp.Config(temperature=0.0)


@pytest.mark.parametrize(("anchor", "placeholder"), [({}, False), ({"anchor": "placeholder"}, True)])
def test_the_anchor_is_the_sentence_unless_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, anchor: dict[str, Any], placeholder: bool
) -> None:
    asked = recorded.of_sites(monkeypatch)
    config = fedpgp.Config(strength=0.75, temperature=0.25, **anchor)
    loopback(fedpgp, replace(CASES[0], config=config), tmp_path).rounds(1)
    assert len(asked.fits) == len(AGENTS)
    for fit in asked.fits:
        (term,) = fit.terms
        assert (term.name, term.strength) == ("text_contrast", 0.75)
        assert term.arrays == {"temperature": 0.25, "placeholder": placeholder}


@pytest.mark.parametrize("rank", [1, 2])
def test_the_rank_of_the_config_is_trained_and_predicted_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    asked = recorded.of_sites(monkeypatch)
    fleet = loopback(fedpgp, replace(CASES[0], config=fedpgp.Config(rank=rank)), tmp_path).rounds(1, evaluate=True)
    assert asked.every_learner == {"terms": ("text_contrast",), "rank": rank}
    own = fleet.memory("anna").own
    assert (own["prompt.u"].shape, own["prompt.v"].shape) == ((2, rank), (rank, 3))
