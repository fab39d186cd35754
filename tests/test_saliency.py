"""The arithmetic by hand. c = (3, -2, 1, 0), g = (1, -2, 2, 4): c - g = (2, 0, -1, -4).

obd |(c - g) c| = (6, 0, 1, 0); change (c - g)^2 = (4, 0, 1, 16). With slopes (0.5, 1, -2, 0) from data: fisher is
these, gradient |slope (c - g)| = (1, 0, 2, 0).
"""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import saliency
from common.errors import RemoteFault
from common.method import Training
from common.payloads import Weights
from common.samples import from_arrays
from tests.methods.closed_form import SPECS, PullLearner


def vector(*values: float) -> Weights:
    return Weights({"w": np.array(values, np.float32)})


C, G, SLOPES = vector(3, -2, 1, 0), vector(1, -2, 2, 4), vector(0.5, 1, -2, 0)


@pytest.mark.parametrize(
    ("form", "expected"),
    [("obd", [6, 0, 1, 0]), ("change", [4, 0, 1, 16]), ("fisher", [0.5, 1, -2, 0]), ("gradient", [1, 0, 2, 0])],
)
def test_scores_by_hand(form: saliency.Form, expected: list[float]) -> None:
    score = saliency.scores(form, C, G, ["w"], SLOPES)["w"]
    assert score.tolist() == expected
    assert score.dtype == np.float32


def test_a_score_from_data_needs_slopes() -> None:
    with pytest.raises(ValueError, match="score 'fisher' needs slopes of local data"):
        saliency.scores("fisher", C, G, ["w"])


def test_fisher_squares_sample_by_sample() -> None:
    """Samples 1 and 3 pull a weight at 2 by 1 and -1: their mean gradient is 0, the mean of its square 1."""
    samples = from_arrays(np.array([[1], [3]], np.float32), np.zeros(2, np.int64), 2)
    own = Weights({name: np.full(1, 2, np.float32) for name in SPECS})
    site: Any = SimpleNamespace(data=SimpleNamespace(train=samples), training=Training())
    forms: tuple[saliency.Form, ...] = ("gradient", "fisher", "obd")
    found: Any = {form: saliency.slopes_of(form, own, PullLearner(2), site) for form in forms}
    assert found["gradient"]["trunk.weight"] == [0]
    assert found["fisher"]["trunk.weight"] == [1]
    assert found["obd"] is None


def test_the_running_score_weighs_the_old_value_by_alpha() -> None:
    now = {"w": np.array([8, 4], np.float32)}
    assert saliency.blended(now, {"w": np.array([0, 8], np.float32)}, 0.25)["w"].tolist() == [6, 5]
    assert saliency.blended(now, None, 0.25)["w"].tolist() == [8, 4]
    assert saliency.blended(now, {"w": np.array([0, 8], np.float32)}, 0.0)["w"].tolist() == [8, 4]


def test_layers_are_normalised_each_and_a_constant_one_is_never_nan() -> None:
    by_layer = saliency.layer_normalised(
        {"a": np.array([2, 4, 6], np.float32), "b": np.array([7, 7], np.float32), "c": np.zeros(0, np.float32)}
    )
    assert by_layer["a"].tolist() == [0, 0.5, 1]
    assert by_layer["b"].tolist() == [0, 0]
    assert by_layer["c"].tolist() == []


@pytest.mark.parametrize(
    ("q", "expected"),
    [
        (0.0, [1, 1, 1, 0]),  # rank 0: above the smallest, 0
        (0.5, [1, 0, 1, 0]),  # rank floor(1.5) = 1: above 1
        (0.7, [1, 0, 0, 0]),  # rank 2: above 4
        (1.0, [0, 0, 0, 0]),  # rank 3: above the largest
    ],
)
def test_the_quantile_by_hand(q: float, expected: list[int]) -> None:
    bits = saliency.above_quantile({"w": np.array([6, 1, 4, 0], np.float32)}, q)
    assert bits["w"].astype(int).tolist() == expected


def test_a_tie_at_the_threshold_leaves_fewer() -> None:
    score = {"w": np.array([5, 5, 5, 1], np.float32)}
    assert not saliency.above_quantile(score, 0.5)["w"].any()  # rank 1 is already 5
    assert saliency.above_quantile(score, 0.0)["w"].tolist() == [True, True, True, False]


@pytest.mark.parametrize("q", [0.0, 0.5, 1.0])
def test_scores_that_are_all_zero_make_nothing_personal(q: float) -> None:
    assert not saliency.above_quantile({"w": np.zeros(9, np.float32)}, q)["w"].any()


def test_the_published_numbers_of_personal_entries() -> None:
    score = np.random.default_rng(1).permutation(582_026).astype(np.float32)
    for q, k in ((0.9999, 59), (0.99, 5821), (0.99992, 47)):
        assert np.count_nonzero(saliency.above_quantile({"w": score}, q)["w"]) == k


def test_one_quantile_over_all_tensors() -> None:
    bits = saliency.above_quantile({"a": np.array([1, 9], np.float32), "b": np.array([[8, 2]], np.float32)}, 0.5)
    assert bits["a"].tolist() == [False, True]
    assert bits["b"].tolist() == [[True, False]]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.floats(0, 1))
def test_selection_agrees_with_a_full_sort(values: list[int], q: float) -> None:
    score = np.array(values, np.float32)
    threshold = np.sort(score)[int(np.floor(q * (len(score) - 1)))]
    assert (saliency.above_quantile({"w": score}, q)["w"] == (score > threshold)).all()


def test_twenty_million_entries_agree_with_a_full_sort() -> None:
    n, q = 20_000_000, 0.9999  # torch.quantile refuses more than sixteen million
    score = np.random.default_rng(3).random(n, np.float32)
    chosen = saliency.above_quantile({"w": score}, q)["w"]
    assert (chosen == (score > np.sort(score)[int(np.floor(q * (n - 1)))])).all()


def test_nan_names_the_tensor() -> None:
    own = Weights({"fine": np.ones(2, np.float32), "broken": np.array([1, np.nan], np.float32)})
    base = Weights({"fine": np.zeros(2, np.float32), "broken": np.zeros(2, np.float32)})
    with pytest.raises(RemoteFault, match="tensor 'broken' cannot be scored: its scores are NaN"):
        saliency.scores("obd", own, base, own)


@pytest.mark.parametrize(("own", "got"), [(vector(1, 2), r"\[2\]"), (Weights({}), "nothing")])
def test_another_model_names_the_tensor(own: Weights, got: str) -> None:
    with pytest.raises(RemoteFault, match=rf"tensor 'w' cannot be scored: expected \[4\], got {got}"):
        saliency.scores("obd", own, G, ["w"])


def test_an_overflowing_score_is_the_largest() -> None:
    score = saliency.scores("change", vector(1e30, 1), vector(0, 0), ["w"])
    by_layer = saliency.layer_normalised(score)
    for chosen in (
        saliency.above_quantile(score, 0.0),
        saliency.above_quantile(by_layer, 0.0),
        saliency.above_mean(score, 1.5),
    ):
        assert chosen["w"].tolist() == [True, False]
