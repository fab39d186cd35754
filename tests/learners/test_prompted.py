"""The net of learned prompts, through the torch learner, on the tiny encoder."""

import math
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from common import encoders, models
from common.errors import ConfigError, LocalFault, RemoteFault, UnknownName
from common.method import Learner, ModelSpec, Term, Training
from common.nets.prompted import contrast
from common.payloads import Weights
from common.samples import Samples, from_arrays
from edge_client import learners

CLASSES = ("cat", "dog", "sea_horse")
DIM = 16


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEFED_THREADS", "1")


def make(terms: tuple[str, ...] = (), **options: Any) -> Learner:
    spec = models.with_classes(ModelSpec("prompted", {"context": 4, **options}), CLASSES)
    return learners.make("torch", spec, len(CLASSES), terms=terms)


def features(n: int = 24, shape: tuple[int, ...] = (DIM,)) -> Samples:
    """Clouds around each class's text, so that there is something to learn."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(CLASSES), n)
    x = rng.standard_normal((n, *shape)).astype(np.float32)
    x[..., :3] += 2 * np.eye(3, dtype=np.float32)[labels].reshape(n, *(1,) * (len(shape) - 1), 3)
    return from_arrays(x, labels, len(CLASSES))


def rng() -> np.random.Generator:
    return np.random.default_rng(1)


def test_its_tensors_are_prompts_and_adapter_alone() -> None:
    parts = {name: spec.part for name, spec in make(rank=2, own=True, adapter=True).parameters().items()}
    assert {name for name, part in parts.items() if part == "prompt"} == {
        "prompt.context", "prompt.u", "prompt.v", "prompt.own",
    }  # fmt: skip
    assert {part for name, part in parts.items() if name.startswith("adapter.")} == {"adapter"}
    assert len(parts) == 8


def test_first_prompts_are_small_and_the_adapter_does_nothing_yet() -> None:
    plain, adapted, samples = make(), make(adapter=True), features()
    weights = adapted.initial(rng())
    assert 0.01 < float(weights["prompt.context"].std()) < 0.03
    np.testing.assert_allclose(
        adapted.embed(weights, samples), plain.embed(weights.only(["prompt.context"]), samples), atol=1e-6
    )


def test_scores_are_scaled_cosines_of_the_encoders_own_texts() -> None:
    samples, encoder = features(), encoders.load("tiny")
    ids = encoder.tokens(["a photo of a cat.", "a photo of a dog.", "a photo of a sea horse."])
    t = torch.nn.functional.normalize(encoder.text_features(encoder.embedded(ids), encoder.ends(ids)), dim=1)
    z = samples.read() / np.linalg.norm(samples.read(), axis=1, keepdims=True)
    found = make(context=0).scores(Weights({}), samples)
    np.testing.assert_allclose(found, encoder.logit_scale * z @ t.numpy().T, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"rank": 2}, {"adapter": True}])
def test_training_lowers_the_loss_and_moves_everything(options: dict[str, Any]) -> None:
    learner, samples = make(**options), features()
    start = learner.initial(rng())
    training = Training(optimiser="adamw", lr=0.02, epochs=8, batch=8)
    first = learner.fit(start, samples, Training(lr=0.0, epochs=1), rng=rng()).loss
    fitted = learner.fit(start, samples, training, rng=rng())
    assert fitted.loss < first
    assert all(not np.array_equal(fitted.weights[name], start[name]) for name in start)


def test_what_may_not_move_stays() -> None:
    learner = make(adapter=True)
    start = learner.initial(rng())
    fitted = learner.fit(start, features(), Training(lr=0.1), trainable=["prompt.context"], rng=rng())
    assert [name for name in start if not np.array_equal(start[name], fitted.weights[name])] == ["prompt.context"]


def test_dense_features_are_transported() -> None:
    learner = make(features="dense", own=True, iterations=20)
    samples = features(shape=(2, 2, DIM))
    start = learner.initial(rng())
    assert learner.embed(start, samples).shape == (24, 4, DIM)
    scores = learner.scores(start, samples)
    assert scores.shape == (24, 3)
    assert np.isfinite(scores).all()
    moved = learner.fit(start, samples, Training(lr=0.1), rng=rng()).weights
    assert all(not np.array_equal(moved[name], start[name]) for name in start)


def test_the_mass_scales_the_scores() -> None:
    samples, own = features(shape=(2, 2, DIM)), {"features": "dense", "own": True}
    start = make(**own).initial(rng())
    start = start.updated({"prompt.own": start["prompt.context"]})  # equal prompts: any plan gives their mean
    half, whole = (make(mass=mass, **own).scores(start, samples) for mass in (0.5, 1.0))
    assert np.abs(half).mean() < np.abs(whole).mean()


@pytest.mark.parametrize("number", [{"mass": 0.5}, {"smoothing": 0.5}, {"iterations": 1}])
def test_each_number_of_the_transport_changes_the_scores(number: dict[str, Any]) -> None:
    samples, own = features(shape=(2, 2, DIM)), {"features": "dense", "own": True}
    start = make(**own).initial(rng())
    found = [make(**own, **numbers).scores(start, samples) for numbers in ({}, number)]
    assert not np.allclose(*found, rtol=1e-4)


def test_the_contrast_is_ln_2_when_anchor_and_own_are_equal() -> None:
    g, c = (torch.nn.functional.normalize(torch.randn(5, 8), dim=1) for _ in range(2))
    assert float(contrast(g, c, c, 0.5)) == pytest.approx(math.log(2))


def test_the_contrast_of_opposites_is_of_their_cosines_over_the_temperature() -> None:
    """Cosines are 1 and -1, so at temperature .5 they are 4 apart."""
    g = torch.nn.functional.normalize(torch.randn(5, 8), dim=1)
    assert float(contrast(g, g, -g, 0.5)) == pytest.approx(math.log(1 + math.exp(-4)), rel=1e-4)
    assert float(contrast(g, -g, g, 0.5)) == pytest.approx(math.log(1 + math.exp(4)), rel=1e-4)


def test_the_contrast_draws_the_common_prompt_to_its_anchor() -> None:
    """Nearer to the anchor asked for than without a contrast, and than with the other anchor."""
    learner, samples, encoder = make(terms=("text_contrast",), rank=2), features(), encoders.load("tiny")
    start = learner.initial(rng())

    def fitted(*terms: Term) -> Weights:
        return learner.fit(start, samples, Training(lr=0.1, epochs=3), terms=terms, rng=rng()).weights

    def drawn(placeholder: bool) -> Weights:
        arrays = {"temperature": np.array(0.5, np.float32), "placeholder": np.array(placeholder)}
        return fitted(Term("text_contrast", 50.0, arrays))

    def nearness(weights: Weights, sentence: str) -> float:
        """Mean over classes of the cosine, as of an image whose features are the anchor's."""
        ids = encoder.tokens([sentence.format(name) for name in ("cat", "dog", "sea horse")])
        anchors = encoder.text_features(encoder.embedded(ids), encoder.ends(ids)).numpy()
        scores = make().scores(weights.only(["prompt.context"]), from_arrays(anchors, np.arange(3), 3))
        return float(np.diag(scores).mean()) / encoder.logit_scale

    for placeholder, sentence in ((False, "a photo of a {}."), (True, "x x x x {}.")):
        near = nearness(drawn(placeholder), sentence)
        assert near > nearness(fitted(), sentence)
        assert near > nearness(drawn(not placeholder), sentence)


def test_the_contrast_is_at_the_temperature_of_its_term(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def noted(common: torch.Tensor, anchor: torch.Tensor, own: torch.Tensor, temperature: float) -> torch.Tensor:
        seen.append(temperature)
        return contrast(common, anchor, own, temperature)

    monkeypatch.setattr("common.nets.prompted.contrast", noted)
    learner = make(terms=("text_contrast",), rank=2)
    term = Term("text_contrast", 1.0, {"temperature": np.array(0.25), "placeholder": np.array(False)})
    learner.fit(learner.initial(rng()), features(), Training(), terms=(term,), rng=rng())
    assert set(seen) == {0.25}


def test_the_regulariser_sums_over_dimensions() -> None:
    """With the mean over them it would be a sixteenth: dead on unit vectors."""
    learner, samples = make(terms=("prototypes",), adapter=True), features()
    start = learner.initial(rng())
    ids, vectors = np.arange(3), np.eye(3, DIM, dtype=np.float32)
    z = learner.embed(start, samples)
    expected = float(np.mean(((z - vectors[samples.labels]) ** 2).sum(1)))
    assert expected > 0.5
    term = Term("prototypes", 100.0, {"class_ids": ids, "vectors": vectors})
    moved = learner.fit(start, samples, Training(lr=0.01, epochs=20), terms=(term,), rng=rng()).weights
    after = learner.embed(moved, samples)
    assert float(np.mean(((after - vectors[samples.labels]) ** 2).sum(1))) < expected


def test_a_prompt_of_another_length_is_refused() -> None:
    weights = Weights({"prompt.context": np.zeros((1, 5, 12), np.float32)})
    with pytest.raises(RemoteFault, match=r"'prompt.context': expected shape \[1, 4, 12\], got \[1, 5, 12\]"):
        make().scores(weights, features())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"features": "local"}, "features must be 'global' or 'dense'"),
        ({"context": -1}, "context and rank must be at least 0"),
        ({"mass": 0.0}, "expected 0 < mass <= 1"),
        ({"template": "a photo."}, "expected [{][}] once"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make(**options)


def test_unknown_texts_and_terms_and_missing_names() -> None:
    with pytest.raises(UnknownName, match=r"'caltech'; did you mean 'caltech101'"):
        make(texts="caltech")
    with pytest.raises(UnknownName, match="unknown term 'contrast'"):
        make(terms=("contrast",))
    nameless = learners.make("torch", ModelSpec("prompted", {"context": 4}), 3)
    weights = nameless.initial(rng())
    with pytest.raises(LocalFault, match="needs 3 class names for its texts, got 0"):
        nameless.scores(weights, features())
    term = Term("text_contrast", 1.0, {"temperature": np.array(0.5), "placeholder": np.array(False)})
    learner = make(terms=("text_contrast",))
    start = learner.initial(rng())
    with pytest.raises(LocalFault, match="needs rank > 0"):
        learner.fit(start, features(), Training(), terms=(term,), rng=rng())
