"""The torch learner against plain torch: torch.optim, autograd, state_dict."""

import os
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from common.errors import ConfigError, LocalFault, RemoteFault, UnknownName
from common.method import Learner, ModelSpec, Term, Training
from common.payloads import Array, Weights
from common.samples import Samples, from_arrays
from edge_client import learners
from tests.learners.conftest import Make, close

SMALL = {
    "linear": ModelSpec("linear"),
    "mlp": ModelSpec("mlp"),
    "fedavg_cnn": ModelSpec("fedavg_cnn", {"input": "16x16x1", "hidden": 16}),
    "gn_cnn": ModelSpec("gn_cnn", {"input": "8x8x3", "width": 8}),
}


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEFED_THREADS", "1")


def make(name: str, **kwargs: Any) -> Learner:
    return learners.make("torch", SMALL[name], 4, **kwargs)


def for_model(images: Make, name: str, n: int) -> Samples:
    text = str(SMALL[name].options.get("input", "8x8x1"))
    return images(n, tuple(int(size) for size in text.split("x")))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def plain_gradients(weights: Weights, samples: Samples, anchor: Weights | None = None, mu: float = 0.0) -> Any:
    """Of a linear model, by autograd in float64, with the proximal term written as a loss."""
    w = {n: torch.tensor(a, dtype=torch.float64, requires_grad=True) for n, a in weights.items()}
    x = (torch.tensor(samples.read(), dtype=torch.float64) / 255 - 0.4) / 0.3
    scores = x.flatten(1) @ w["classifier.weight"].T + w["classifier.bias"]
    loss = torch.nn.functional.cross_entropy(scores, torch.tensor(samples.labels))
    if anchor is not None:
        loss = loss + mu / 2 * sum((w[n] - torch.tensor(anchor[n], dtype=torch.float64)).square().sum() for n in w)
    return dict(zip(w, (g.numpy() for g in torch.autograd.grad(loss, list(w.values()))), strict=True))


@pytest.mark.parametrize("name", SMALL)
def test_gradients_are_the_mean_over_samples_whatever_the_batches(images: Make, name: str) -> None:
    learner, samples = make(name), for_model(images, name, 150)  # more than are read at a time
    weights = learner.initial(rng())
    whole = learner.gradients(weights, samples, "cross_entropy")
    parts = [learner.gradients(weights, samples.take(np.arange(a, a + 50)), "cross_entropy") for a in (0, 50, 100)]
    assert set(whole) == {n for n, s in learner.parameters().items() if s.kind == "param"}
    for tensor, gradient in whole.items():
        close(gradient, sum(np.asarray(p[tensor], np.float64) for p in parts) / 3, atol=1e-6)


def test_gradients_are_autograds(images: Make) -> None:
    learner, samples = make("linear"), images(30)
    weights = learner.initial(rng())
    for name, expected in plain_gradients(weights, samples).items():
        close(learner.gradients(weights, samples, "cross_entropy")[name], expected, atol=1e-6)


@pytest.mark.parametrize(
    "training",
    [
        Training(lr=0.05, epochs=4, batch=7),
        Training(lr=0.05, epochs=4, batch=7, momentum=0.9, weight_decay=0.1),
        Training(lr=0.05, epochs=4, batch=7, momentum=0.9, nesterov=True, weight_decay=0.1),
        Training(lr=0.01, epochs=4, batch=7, optimiser="adamw", weight_decay=0.1),
    ],
    ids=["sgd", "momentum", "nesterov", "adamw"],
)
def test_optimisers_are_those_of_torch(images: Make, training: Training) -> None:
    learner, samples = make("linear"), images(20)
    start = learner.initial(rng())
    w = {n: torch.tensor(a, requires_grad=True) for n, a in start.items()}
    rule: Any = {"lr": training.lr, "weight_decay": training.weight_decay}
    optimiser = (
        torch.optim.AdamW(w.values(), **rule)
        if training.optimiser == "adamw"
        else torch.optim.SGD(w.values(), momentum=training.momentum, nesterov=training.nesterov, **rule)
    )
    order = rng(5)
    for _ in range(training.epochs):
        which = order.permutation(20)
        for begin in range(0, 20, 7):
            batch = samples.take(which[begin : begin + 7])
            x = (torch.tensor(batch.read()) / 255 - 0.4) / 0.3
            optimiser.zero_grad()
            scores = x.flatten(1) @ w["classifier.weight"].T + w["classifier.bias"]
            loss = torch.nn.functional.cross_entropy(scores, torch.tensor(batch.labels))
            loss.backward()  # type: ignore[no-untyped-call]  # torch
            optimiser.step()
    fitted = learner.fit(start, samples, training, rng=rng(5))
    assert fitted.n_steps == 12
    for name, tensor in w.items():
        close(fitted.weights[name], tensor.detach().numpy(), atol=2e-6)  # usual difference 1e-7


def test_proximal_is_the_gradient_of_half_mu_squared_distance(images: Make) -> None:
    learner, samples = make("linear"), images(16)
    start, anchor = learner.initial(rng()), learner.initial(rng(9))
    step = Training(lr=0.1, batch=16)
    fitted = learner.fit(start, samples, step, terms=(Term("proximal", 0.7, anchor),), rng=rng())
    for name, gradient in plain_gradients(start, samples, anchor, 0.7).items():
        close(fitted.weights[name], start[name] - 0.1 * gradient, atol=1e-6)


def test_proximal_of_strength_zero_changes_no_bit(images: Make) -> None:
    learner, samples = make("gn_cnn"), images(20, (8, 8, 3))
    start, training = learner.initial(rng()), Training(lr=0.1, batch=8, momentum=0.5)
    plain = learner.fit(start, samples, training, rng=rng()).weights
    term = learner.fit(start, samples, training, terms=(Term("proximal", 0.0, start),), rng=rng()).weights
    assert all(np.array_equal(array, term[name]) for name, array in plain.items())


@pytest.mark.parametrize("name", SMALL)
def test_the_same_seed_gives_the_same_bits_and_no_state_is_left(images: Make, name: str) -> None:
    """The optimiser is reset at each fit, the weights come from the argument alone."""
    learner, samples = make(name), for_model(images, name, 20)
    start, training = learner.initial(rng()), Training(lr=0.05, batch=8, momentum=0.9, epochs=2)
    first = learner.fit(start, samples, training, rng=rng(1))
    learner.scores(learner.initial(rng(7)), samples)
    second = learner.fit(start, samples, training, rng=rng(1))
    fresh = make(name).fit(start, samples, training, rng=rng(1))
    other = learner.fit(start, samples, training, rng=rng(2))
    assert first.loss == second.loss == fresh.loss
    for tensor, array in first.weights.items():
        assert np.array_equal(array, second.weights[tensor])
        assert np.array_equal(array, fresh.weights[tensor])
    assert any(not np.array_equal(array, other.weights[tensor]) for tensor, array in first.weights.items())


@pytest.mark.parametrize("name", SMALL)
def test_what_may_not_move_is_the_same_bit_for_bit(images: Make, name: str) -> None:
    learner, samples = make(name), for_model(images, name, 20)
    start = learner.initial(rng())
    head = {n for n, s in learner.parameters().items() if s.part == "head"}
    training = Training(lr=0.1, weight_decay=0.1, momentum=0.9)
    fitted = learner.fit(start, samples, training, terms=(Term("proximal", 1.0, start),), trainable=head, rng=rng())
    assert {n for n, array in fitted.weights.items() if not np.array_equal(array, start[n])} == head
    later = learner.fit(start, samples, training, rng=rng()).weights  # and nothing stays frozen
    assert not any(np.array_equal(array, start[n]) for n, array in later.items())


def test_arrays_from_the_wire_are_read_only_and_stay_as_they_are(images: Make) -> None:
    learner, samples = make("mlp"), images(20)
    samples.source.read(samples.positions).flags.writeable = False
    start = learner.initial(rng())
    before = {name: array.copy() for name, array in start.items()}
    for array in start.values():
        array.flags.writeable = False
    fitted = learner.fit(start, samples, Training(), rng=rng()).weights
    kept = {name: array.copy() for name, array in fitted.items()}
    learner.scores(start, samples)
    learner.fit(start, samples, Training(lr=0.5), rng=rng())
    assert all(np.array_equal(before[name], start[name]) for name in start)
    assert all(np.array_equal(kept[name], fitted[name]) for name in fitted)  # results are no views of the module


def test_prototypes_pull_the_embeddings_of_their_classes(images: Make) -> None:
    learner, samples = make("gn_cnn", terms=("prototypes",)), images(40, (8, 8, 3))
    start = learner.initial(rng())
    dim = learner.embed(start, samples).shape[1]
    arrays = {"class_ids": np.array([1, 3]), "vectors": np.full((2, dim), 0.5, np.float32)}
    has = np.isin(samples.labels, [1, 3])

    def distance(weights: Weights) -> float:
        return float(np.square(learner.embed(weights, samples)[has] - 0.5).sum(axis=1).mean())

    training = Training(lr=0.02, epochs=5)
    pulled = learner.fit(start, samples, training, terms=(Term("prototypes", 1.0, arrays),), rng=rng())
    free = learner.fit(start, samples, training, rng=rng())
    assert distance(pulled.weights) < 0.7 * distance(free.weights)
    assert pulled.loss < 2  # cross-entropy alone: the term, near 5 here, is not in it


def test_prototypes_of_no_class_in_the_batch_are_no_pull(images: Make) -> None:
    learner, samples = make("mlp", terms=("prototypes",)), images(20)
    kept = samples.take(np.flatnonzero(samples.labels != 2))
    start = learner.initial(rng())
    plain = learner.fit(start, kept, Training(), rng=rng()).weights
    for ids in ([2], []):
        arrays: dict[str, Array] = {
            "class_ids": np.array(ids, np.int64),
            "vectors": np.ones((len(ids), 64), np.float32),
        }
        fitted = learner.fit(start, kept, Training(), terms=(Term("prototypes", 1.0, arrays),), rng=rng()).weights
        assert all(np.array_equal(array, plain[name]) for name, array in fitted.items())


def test_layers_are_found_by_path(images: Make) -> None:
    learner, samples = make("fedavg_cnn"), images(9, (16, 16, 1))
    weights = learner.initial(rng())
    assert learner.embed(weights, samples).shape == (9, 16)
    assert learner.embed(weights, samples, "base.conv1").shape == (9, 32 * 12 * 12)
    np.testing.assert_array_equal(learner.embed(weights, samples, "classifier"), learner.scores(weights, samples))
    with pytest.raises(UnknownName, match=r"unknown layer 'base\.conv3'"):
        learner.embed(weights, samples, "base.conv3")


def test_an_empty_view_gives_empty_answers(images: Make) -> None:
    learner = make("fedavg_cnn")
    start, none = learner.initial(rng()), images(0, (16, 16, 1))
    assert learner.fit(start, none, Training(), rng=rng()).weights is start
    assert learner.scores(start, none).shape == (0, 4)
    assert learner.embed(start, none).shape == (0, 16)


def test_float_features_are_taken_as_they_are(images: Make) -> None:
    learner = make("linear")
    weights = learner.initial(rng())
    x = rng(3).normal(size=(5, 64)).astype(np.float32)
    expected = x @ np.asarray(weights["classifier.weight"], np.float32).T + np.asarray(
        weights["classifier.bias"], np.float32
    )
    close(learner.scores(weights, from_arrays(x, np.zeros(5, np.int64), 4)), expected, atol=1e-5)


def test_mistakes_are_named(images: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    learner, samples = make("fedavg_cnn"), images(5, (16, 16, 1))
    start = learner.initial(rng())
    with pytest.raises(ConfigError, match=r"expected 16x16x1, got 16x16x3; set \[model\] input = '16x16x3'"):
        learner.scores(start, images(5, (16, 16, 3)))
    with pytest.raises(RemoteFault, match=r"tensor 'base\.conv1\.weight': expected shape \[32, 1, 5, 5\], got \[1\]"):
        learner.fit(start.updated({"base.conv1.weight": np.zeros(1)}), samples, Training(), rng=rng())
    with pytest.raises(LocalFault, match="labels must be from 0 to 3"):
        learner.gradients(start, samples.unlabelled(), "cross_entropy")
    with pytest.raises(UnknownName, match="did you mean 'cross_entropy'"):
        learner.gradients(start, samples, "cross_entropie")
    with pytest.raises(LocalFault, match="nothing to train"):
        learner.fit(start, samples, Training(), trainable=[], rng=rng())
    with pytest.raises(LocalFault, match="term 'prototypes' was not asked for"):
        learner.fit(start, samples, Training(), terms=(Term("prototypes", 1.0, {}),), rng=rng())
    monkeypatch.setenv("EDGEFED_THREADS", "many")
    with pytest.raises(ConfigError, match="EDGEFED_THREADS: expected a number of threads from 1, got 'many'"):
        make("linear")


def test_threads_come_from_the_environment() -> None:
    assert os.environ["EDGEFED_THREADS"] == "1"
    make("linear")
    assert torch.get_num_threads() == 1


def test_who_shares_a_batch_plays_no_role_for_a_learner_that_only_looks(images: Make) -> None:
    samples = images(6, (32, 32, 3))
    learner = learners.make("torch", ModelSpec("resnet10", {"width": 4, "input": "32x32x3", "stem": "small"}), 3)
    weights = learner.initial(np.random.default_rng(0))
    alone = [learner.scores(weights, samples.take(np.array([i]))) for i in range(6)]
    close(learner.scores(weights, samples), np.concatenate(alone), atol=1e-5)
