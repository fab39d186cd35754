"""The site that a method works with: its own first draw, spans that know their bytes, features remembered."""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pytest

from common import seeds
from common.meter import Meter
from common.method import Learner, ModelSpec, RunSpec, Scores, Training
from common.payloads import Weights
from common.samples import Samples, from_arrays
from edge_client.data.agent_data import AgentData
from edge_client.data.loaded import loaded
from edge_client.site import Embeddings, MeteredLearner, TaskSite, Trained, views

DIM, N = 5, 12
RUN = RunSpec("r", "fedavg", None, ModelSpec("linear", {"input": str(DIM)}), Training(batch=4), 3, 11)


def agent_data() -> AgentData:
    rng = seeds.generator(2)
    every = from_arrays(rng.random((N + 4, DIM), np.float32), np.arange(N + 4) % 3, 3, digest="d")
    return AgentData("d", ("a", "b", "c"), every.take(np.arange(N)), every.take(np.arange(N, N + 4)))


def make_site(agent: str = "x", *, round: int = 1, meter: Meter | None = None, **changed: Any) -> TaskSite:
    data, source = loaded(agent_data())
    return TaskSite(
        RUN,
        agent,
        data.classes,
        views(data, changed.pop("share", 0.0), seeds.generator(1)),
        source,
        rng=seeds.generator(RUN.seed, round, agent, "work"),
        meter=meter or Meter(),
        embeddings=changed.pop("embeddings", Embeddings()),
        check=changed.pop("check", lambda: None),
    )


def same(a: Weights, b: Weights) -> bool:
    return list(a) == list(b) and all(np.array_equal(a[name], b[name]) for name in a)


def test_the_first_draw_is_the_agents_own_and_the_same_in_every_round() -> None:
    one, later, other = make_site(), make_site(round=2), make_site("y")
    drawn = one.initial(one.learner())
    assert same(drawn, later.initial(later.learner()))
    assert not same(drawn, other.initial(other.learner()))
    assert list(one.initial(one.learner(), "head")) == ["classifier.weight", "classifier.bias"]
    assert not one.initial(one.learner(), "trunk")


def test_a_learner_has_the_runs_classes_unless_a_variant_says_otherwise() -> None:
    site = make_site()
    assert site.learner().n_classes == 3
    assert site.learner(n_classes=7).parameters()["classifier.weight"].shape == (7, DIM)
    assert "fc1.weight" in site.learner(model="mlp", hidden=4).parameters()


def test_the_holdout_is_not_in_the_training_part() -> None:
    site = make_site(share=0.25)
    train, holdout = site.data.train, site.data.holdout
    assert (len(train), len(holdout)) == (9, 3)
    assert sorted([*train.positions, *holdout.positions]) == list(range(N))
    assert len(site.data.unlabelled) == 9


def test_a_span_reports_the_bytes_of_its_samples_and_model() -> None:
    meter = Meter()
    site = make_site(meter=meter)
    learner = site.learner()
    weights = site.initial(learner)
    with meter.measuring():
        for name, n in (("few", 4), ("all", N)):
            with site.span(name, n):
                learner.fit(weights, site.data.train.take(np.arange(n)), site.training, rng=site.rng)
        site.count("experts", 2)
    few, whole = meter.measured.spans
    assert (few.name, few.n_samples, few.data_bytes) == ("few", 4, 4 * DIM * 4)
    assert (whole.n_samples, whole.data_bytes) == (N, N * DIM * 4)
    assert few.model_bytes == whole.model_bytes == site.trained.model_bytes == 2 * 4 * 3 * (DIM + 1)
    assert site.trained.n_samples == 4 + N
    assert meter.measured.counts == {"experts": 2}


def test_a_method_that_trains_by_gradients_tells_its_bytes_and_no_loss() -> None:
    site = make_site()
    learner = site.learner()
    assert (site.trained.model_bytes, site.trained.loss) == (0, None)
    learner.gradients(site.initial(learner), site.data.train, "cross_entropy")
    assert (site.trained.model_bytes, site.trained.loss) == (2 * 4 * 3 * (DIM + 1), None)


def test_what_takes_long_asks_first_whether_to_go_on() -> None:
    class Ended(Exception):
        pass

    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise Ended

    site = make_site(check=check)
    learner = site.learner()
    weights = site.initial(learner)
    learner.scores(weights, site.data.test)
    with pytest.raises(Ended):
        learner.fit(weights, site.data.train, site.training, rng=site.rng)
    calls = 2
    with pytest.raises(Ended):
        learner.gradients(weights, site.data.train, "cross_entropy")


@dataclass
class CountedEmbedding:
    """A learner's `embed` that notes how often it is asked."""

    n_classes: int = 3
    n_asked: int = 0

    def embed(self, weights: Weights, samples: Samples, layer: str = "embedding") -> Scores:
        self.n_asked += 1
        return np.zeros((len(samples), 2), np.float32)


def test_features_are_computed_once_for_the_same_weights_samples_and_layer() -> None:
    inner, kept = CountedEmbedding(), Embeddings()
    learner = MeteredLearner(cast(Learner, inner), "m", Trained(), kept, lambda: None)
    data = agent_data()
    weights = Weights({"w": np.ones(3, np.float32)})
    learner.embed(weights, data.train)
    learner.embed(Weights({"w": np.ones(3, np.float32)}), agent_data().train)
    assert inner.n_asked == 1
    learner.embed(weights, data.test)
    learner.embed(weights, data.train, "other")
    learner.embed(Weights({"w": np.zeros(3, np.float32)}), data.train)
    MeteredLearner(cast(Learner, inner), "m2", Trained(), kept, lambda: None).embed(weights, data.train)
    assert inner.n_asked == 5


def test_features_that_were_not_used_for_longest_go_first() -> None:
    kept = Embeddings(at_most_bytes=100)
    for key in (b"a", b"b"):
        kept.keep(key, np.zeros(10, np.float32))
    kept.get(b"a")
    kept.keep(b"c", np.zeros(10, np.float32))
    assert kept.get(b"b") is None
    assert kept.get(b"a") is not None
