"""The numpy learner against numbers worked out by hand, and against finite differences."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from common.errors import ConfigError, LocalFault, RemoteFault, UnknownName
from common.method import Learner, ModelSpec, Term, Training
from common.payloads import Weights
from common.samples import Samples, from_arrays
from edge_client import learners
from tests.learners.conftest import Make, close


def linear(n_classes: int = 2, dim: int = 2, **kwargs: Any) -> Learner:
    return learners.make("numpy", ModelSpec("linear", {"input": dim}), n_classes, **kwargs)


def zeros(learner: Learner) -> Weights:
    return Weights({n: np.zeros(s.shape, np.float32) for n, s in learner.parameters().items()})


def two_points() -> Samples:
    return from_arrays(np.array([[2.0, 0.0], [0.0, 4.0]], np.float32), np.array([0, 1]), 2)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def finite_difference(f: Callable[[Weights], float], weights: Weights, name: str, place: tuple[Any, ...]) -> float:
    values = []
    for move in (1e-3, -1e-3):
        moved: Any = weights[name].copy()
        moved[place] += move
        values.append(f(weights.updated({name: moved})))
    return (values[0] - values[1]) / 2e-3


def test_one_step_from_zero_by_hand() -> None:
    """From zero both classes have p = 1/2, so d scores = (p - onehot) / 2 = -+1/4; times x: 0.5 and 1."""
    learner = linear()
    fitted = learner.fit(zeros(learner), two_points(), Training(lr=0.1), rng=rng())
    close(fitted.weights["classifier.weight"], [[0.05, -0.1], [-0.05, 0.1]], atol=1e-7)
    close(fitted.weights["classifier.bias"], [0, 0], atol=1e-7)
    assert fitted.n_steps == 1
    assert fitted.loss == pytest.approx(np.log(2), abs=1e-6)


def test_heavy_ball_keeps_its_velocity_and_forgets_it_between_trainings() -> None:
    """A constant slope g (x = 0 apart, only the bias moves): after two steps w = -lr (g + (g + m g))."""
    learner = linear()
    samples = from_arrays(np.zeros((1, 2), np.float32), np.array([0]), 2)
    tiny = Training(lr=1e-3, momentum=0.5, epochs=2, batch=1)
    once = learner.fit(zeros(learner), samples, tiny, rng=rng()).weights
    close(once["classifier.bias"], [1.25e-3, -1.25e-3], atol=2.5e-6)
    again = learner.fit(once, samples, Training(lr=1e-3, momentum=0.5, batch=1), rng=rng()).weights
    close(np.subtract(again["classifier.bias"], once["classifier.bias"]), [5e-4, -5e-4], atol=2.5e-6)


def test_gradients_are_those_of_finite_differences(images: Make) -> None:
    learner = learners.make("numpy", ModelSpec("mlp", {"hidden": 5}), 4)
    samples, weights = images(9), learner.initial(rng())
    found = learner.gradients(weights, samples, "cross_entropy")

    def loss(changed: Weights) -> float:
        scores = learner.scores(changed, samples).astype(np.float64)
        odds = np.exp(scores - scores.max(axis=1, keepdims=True))
        return float(-np.log(odds / odds.sum(axis=1, keepdims=True))[np.arange(len(samples)), samples.labels].mean())

    for name, array in weights.items():
        place = np.unravel_index(np.abs(found[name]).argmax(), array.shape)
        assert found[name][place] == pytest.approx(finite_difference(loss, weights, name, place), rel=0.02)


def test_proximal_pulls_towards_its_anchor_by_hand() -> None:
    """With x = 0 and two samples of both classes the loss has no slope, so w <- w - lr mu (w - anchor)."""
    learner = linear()
    samples = from_arrays(np.zeros((2, 2), np.float32), np.array([0, 1]), 2)
    start = Weights({n: np.ones(s.shape, np.float32) for n, s in learner.parameters().items()})
    pull = Term("proximal", 2.0, {"classifier.weight": np.full((2, 2), 3.0, np.float32)})
    fitted = learner.fit(start, samples, Training(lr=0.1), terms=(pull,), rng=rng())
    close(fitted.weights["classifier.weight"], 1.4, atol=1e-6)
    close(fitted.weights["classifier.bias"], 1.0, atol=1e-6)  # the anchor does not name it


def test_prototypes_add_the_slope_of_their_distance(images: Make) -> None:
    learner = learners.make("numpy", ModelSpec("mlp"), 4, terms=("prototypes",))
    samples, start = images(40), learner.initial(rng())
    vectors = np.full((2, 64), 0.5, np.float32)
    term = Term("prototypes", 2.0, {"class_ids": np.array([1, 3]), "vectors": vectors})

    def distance(weights: Weights) -> float:
        has = np.isin(samples.labels, [1, 3])
        hidden = learner.embed(weights, samples)[has].astype(np.float64)
        return float(np.square(hidden - 0.5).sum(axis=1).mean())

    step = Training(lr=0.1, batch=len(samples))
    with_term = learner.fit(start, samples, step, terms=(term,), rng=rng()).weights
    without = learner.fit(start, samples, step, rng=rng()).weights
    slope: Any = np.subtract(without["fc1.weight"], with_term["fc1.weight"]) / (0.1 * 2.0)
    place = np.unravel_index(np.abs(slope).argmax(), slope.shape)
    assert slope[place] == pytest.approx(finite_difference(distance, start, "fc1.weight", place), rel=0.02)


def test_what_may_not_move_is_the_same_bit_for_bit(images: Make) -> None:
    learner = learners.make("numpy", ModelSpec("mlp"), 4)
    start = learner.initial(rng())
    fitted = learner.fit(start, images(20), Training(weight_decay=0.1), trainable=["classifier.bias"], rng=rng())
    same = {name: np.array_equal(array, start[name]) for name, array in fitted.weights.items()}
    assert same == {"fc1.weight": True, "fc1.bias": True, "classifier.weight": True, "classifier.bias": False}


def test_training_writes_into_nothing_it_is_given(images: Make) -> None:
    learner = learners.make("numpy", ModelSpec("linear"), 4)
    start = learner.initial(rng())
    for array in start.values():
        array.flags.writeable = False  # as arrays from the wire are
    assert not np.array_equal(
        learner.fit(start, images(20), Training(), rng=rng()).weights["classifier.bias"], start["classifier.bias"]
    )


def test_no_samples_no_steps(images: Make) -> None:
    learner = learners.make("numpy", ModelSpec("mlp"), 4)
    start, none = learner.initial(rng()), images(0)
    fitted = learner.fit(start, none, Training(), rng=rng())
    assert (fitted.weights, fitted.n_steps, fitted.loss) == (start, 0, 0.0)
    assert learner.scores(start, none).shape == (0, 4)
    assert learner.embed(start, none).shape == (0, 64)


def test_it_learns(images: Make) -> None:
    samples = images(200)
    for name in ("linear", "mlp"):
        learner = learners.make("numpy", ModelSpec(name), 4)
        training = Training(epochs=20, momentum=0.9, lr=0.02)
        fitted = learner.fit(learner.initial(rng()), samples, training, rng=rng())
        assert np.mean(learner.scores(fitted.weights, samples).argmax(axis=1) == samples.labels) > 0.9  # chance: 0.25


def test_mistakes_are_named(images: Make) -> None:
    learner, samples = learners.make("numpy", ModelSpec("linear"), 4), images(5)
    start = learner.initial(rng())
    with pytest.raises(ConfigError, match=r"expected 8x8x1, got 9x8x1; set \[model\] input = '9x8x1'"):
        learner.fit(start, images(5, (9, 8, 1)), Training(), rng=rng())
    with pytest.raises(RemoteFault, match=r"tensor 'classifier.bias' is missing"):
        learner.scores(start.only(["classifier.weight"]), samples)
    with pytest.raises(UnknownName, match=r"unknown tensor 'classifier\.wait'"):
        learner.fit(start, samples, Training(), trainable=["classifier.wait"], rng=rng())
    with pytest.raises(UnknownName, match="unknown layer 'fc9'"):
        learner.embed(start, samples, "fc9")
    with pytest.raises(LocalFault, match="labels must be from 0 to 3"):
        learner.fit(start, images(9, n_classes=9), Training(), rng=rng())
    with pytest.raises(LocalFault, match="labels must be from 0 to 3"):
        learner.fit(start, samples.unlabelled(), Training(), rng=rng())
    with pytest.raises(LocalFault, match="nothing to train"):
        learner.fit(start, samples, Training(), trainable=[], rng=rng())
    with pytest.raises(LocalFault, match="term 'prototypes' was not asked for"):
        learner.fit(start, samples, Training(), terms=(Term("prototypes", 1.0, {}),), rng=rng())
    anchor = {"classifier.bias": np.zeros(3, np.float32)}
    with pytest.raises(LocalFault, match=r"tensor 'classifier.bias': expected shape \[4\], got \[3\]"):
        learner.fit(start, samples, Training(), terms=(Term("proximal", 1.0, anchor),), rng=rng())
