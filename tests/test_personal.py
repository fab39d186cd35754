from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from common import personal
from common.errors import ConfigError
from common.method import Learner, ModelPart, Spec
from common.payloads import Blob, Weights
from tests.methods.tiny import TinyLearner, TinyModel


@dataclass
class Site:
    n_draws: int = 0

    def initial(self, learner: Learner, part: ModelPart | None = None) -> Weights:
        self.n_draws += 1
        return learner.initial(np.random.default_rng(0))


def first(start: dict[str, Any]) -> Weights:
    return personal.first_weights(TinyModel(), start, np.random.default_rng(1))


def test_batch_norm_is_the_whole_layer_of_a_running_statistic() -> None:
    names = personal.batch_norm(TinyModel().parameters(), "local")
    assert names == ("norm.scale", "norm.mean", "norm.count")
    assert personal.batch_norm(TinyModel().parameters(), "average") == ()


def test_layers_without_a_name_are_not_taken_for_one() -> None:
    specs = {"w": Spec((1,)), "statistic": Spec((1,), kind="buffer")}
    assert personal.batch_norm(specs, "local") == ("statistic",)


def test_an_exported_backbone_is_no_batch_norm() -> None:
    specs = {"graph": Spec((9,), "uint8", "counter", "graph"), "classifier.bias": Spec((2,), layer="classifier")}
    assert personal.batch_norm(specs, "local") == ()


def test_a_whole_model_is_put_together_in_the_models_order() -> None:
    site, learner = Site(), TinyLearner(4)
    drawn = learner.initial(np.random.default_rng(7))
    head, trunk = drawn.only(personal.head(learner.parameters())), drawn.without(personal.head(learner.parameters()))
    whole = personal.whole(site, learner, [head, None, trunk])  # type: ignore[arg-type]
    assert list(whole) == list(learner.parameters())
    assert whole.kinds == drawn.kinds
    assert site.n_draws == 0


def test_what_nobody_has_is_the_agents_own_first_draw() -> None:
    site, learner = Site(), TinyLearner(4)
    trunk = learner.initial(np.random.default_rng(7)).without(personal.head(learner.parameters()))
    whole = personal.whole(site, learner, [trunk])  # type: ignore[arg-type]
    own = learner.initial(np.random.default_rng(0))
    assert (whole["classifier.weight"] == own["classifier.weight"]).all()
    assert (whole["trunk.weight"] == trunk["trunk.weight"]).all()


def test_earlier_weights_are_put_over_the_draw() -> None:
    earlier = TinyModel().initial(np.random.default_rng(9))
    found = first({"weights": earlier})
    assert all((found[name] == earlier[name]).all() for name in earlier)
    assert found.kinds == earlier.kinds


@pytest.mark.parametrize(
    ("start", "text"),
    [
        (Weights({"other": np.zeros(1)}), "the model has no tensor 'other'; it has trunk.weight"),
        (Weights({"trunk.weight": np.zeros((2, 3), np.float32)}), r"tensor 'norm.scale' must be \[2\], got nothing"),
        (Blob("text/plain", b"x"), "payload 'weights' must be weights, got Blob"),
    ],
)
def test_earlier_weights_that_do_not_fit_are_refused(start: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=f"init_from: {text}"):
        first({"weights": start})
