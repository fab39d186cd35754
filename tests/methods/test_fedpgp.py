"""FedPGP: the common prompt travels, U and V never do."""

from pathlib import Path

import numpy as np
import pytest

from common.methods import fedpgp
from tests.methods.contract import Case, loopback
from tests.methods.loopback import AGENTS
from tests.methods.tiny_prompts import PromptLearner, PromptModel

PROMPTED = {"model": PromptModel(), "learner": PromptLearner, "keeps_memory": True}
CASES = (
    Case("plain", fedpgp.Config(rank=2), **PROMPTED),
    Case("placeholder, no contrast", fedpgp.Config(strength=0.0, rank=1, anchor="placeholder"), **PROMPTED),
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


def test_the_anchor_is_the_sentence_unless_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    fit = PromptLearner.fit

    def noted(self, *args, terms=(), **kwargs):  # type: ignore[no-untyped-def]
        seen.extend((term.strength, bool(term.arrays["placeholder"])) for term in terms)
        return fit(self, *args, terms=terms, **kwargs)

    monkeypatch.setattr(PromptLearner, "fit", noted)
    loopback(fedpgp, CASES[0], tmp_path).rounds(1)
    assert set(seen) == {(0.5, False)}
    assert np.float32(fedpgp.Config().temperature) == 0.5
