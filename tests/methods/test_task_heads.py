"""Task heads: by hand under a frozen backbone, and what travels, stays and is refused.

The features of a sample under `Backbone` are its value times the trunk's weight. With weight 2, one sample of value 1
in class 0 and one of value -1 in class 1, features are 2 and -2; standardised 1 and -1 (mean 0, deviation 2).
From a head of zeros, one step of SGD at lr 1 on both: the softmax gives 1/2 each, so the slope for class 0's weight is
mean of (1/2 - 1) * 1 and (1/2) * -1 = -1/2, for its bias 0. The head is (1/2, -1/2) on the standardised features, and
(1/4, -1/4) on the features as they are.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common import tuning
from common.errors import ConfigError, RemoteFault
from common.method import Fitted, Learner, ModelSpec, Scalar, Scores, Spec, Term, Training
from common.methods import task_heads
from common.methods.task_heads import Config
from common.payloads import Weights
from common.samples import Samples, from_arrays
from edge_client.learners.numpy.learner import NumpyLearner
from tests.methods.contract import Case, loopback
from tests.methods.loopback import Data, Faults, Loopback
from tests.methods.tiny import TinyLearner, TinyModel


def make(n_classes: int, **variant: Scalar) -> Learner:
    """The tiny net, and the numpy learner for a head on its features."""
    if "input" in variant:
        return NumpyLearner(ModelSpec("linear", {"input": variant["input"]}), n_classes, ())
    return TinyLearner(n_classes, **variant) if n_classes else Trunk(0)


class Trunk(TinyLearner):
    """The tiny net without a head, which its own forward would ask for."""

    def embed(self, weights: Weights, samples: Samples, layer: str = "embedding") -> Scores:
        return super().embed(weights.updated(EARLIER), samples, layer)


def case(name: str, config: Config, *, keeps_memory: bool = True, **other: Any) -> Case:
    return Case(name, config, head="agent", keeps_memory=keeps_memory, **{"learner": make, **other})


EARLIER = Weights(
    {"classifier.weight": np.ones((4, 2), np.float32), "classifier.bias": np.ones(4, np.float32)}
)  # of task "tiny4", as a run of agents with four classes would leave it
CASES = (
    case("frozen", Config()),
    case("frozen, not cached", Config(features="computed", standardise=False)),
    case("frozen, own statistics", Config(bn="re-estimated")),
    case("last stage", Config(tune="last", bn="local")),
    case("all of it", Config(tune="all")),
    case("all of it averaged", Config(tune="all", backbone="average", bn="re-estimated")),
    Case(
        "heads averaged too",
        Config(tune="all", backbone="average", heads="average", bn="local"),
        keeps_memory=True,
        learner=make,
        start={"head.tiny4": EARLIER},
    ),
)


def specs(n_classes: int) -> dict[str, Spec]:
    heads = {"classifier.weight": (n_classes, 1), "classifier.bias": (n_classes,)} if n_classes else {}
    return {
        "trunk.weight": Spec((1,), layer="trunk"),
        **{name: Spec(shape, layer="classifier", part="head") for name, shape in heads.items()},
    }


SPECS = specs(2)


class Backbone:
    """One weight that is 2; a head of zeros."""

    def __init__(self, n_classes: int = 2, **variant: Scalar) -> None:
        self.n_classes = n_classes

    def parameters(self, **variant: Scalar) -> dict[str, Spec]:
        return specs(self.n_classes)

    def initial(self, rng: np.random.Generator, **variant: Scalar) -> Weights:
        shapes = {name: spec.shape for name, spec in self.parameters().items()}
        return Weights({n: np.full(shape, 2.0 * (n == "trunk.weight"), np.float32) for n, shape in shapes.items()})

    def embed(self, weights: Weights, samples: Samples, layer: str = "embedding") -> Scores:
        assert set(weights) == {"trunk.weight"}
        return np.asarray(samples.read() * weights["trunk.weight"], np.float32)

    def fit(
        self,
        weights: Weights,
        samples: Samples,
        training: Training,
        *,
        terms: tuple[Term, ...] = (),
        trainable: Iterable[str] | None = None,
        rng: np.random.Generator,
    ) -> Fitted:
        """Adds 1 to whatever may move."""
        return Fitted(weights.updated({n: weights[n] + np.float32(1) for n in trainable or weights}), 0.0, 1)

    def scores(self, weights: Weights, samples: Samples) -> Scores:
        return np.zeros((len(samples), self.n_classes), np.float32)


class Zeros(NumpyLearner):
    def initial(self, rng: np.random.Generator) -> Weights:
        return Weights({name: np.zeros(spec.shape, np.float32) for name, spec in self.parameters().items()})


def by_hand(n_classes: int, **variant: Scalar) -> Any:
    if "input" in variant:
        return Zeros(ModelSpec("linear", {"input": variant["input"]}), n_classes, ())
    return Backbone(n_classes)


def pair(value: float) -> Data:
    x, y = np.array([[value], [-value]], np.float32), np.array([0, 1])
    samples = from_arrays(x, y, 2)
    return Data(samples, samples.take(np.arange(0)), samples, samples.unlabelled())


BY_HAND = case(
    "by hand",
    Config(),
    training=Training(lr=1.0, batch=2),
    model=Backbone(),
    learner=by_hand,
    data=lambda: {"a": pair(1.0), "b": pair(3.0)},
)


def fleet(folder: Path, **config: Any) -> Loopback:
    return loopback(task_heads, replace(BY_HAND, config=Config(**config)), folder)


def head_of(run: Loopback, agent: str) -> list[float]:
    return run.memory(agent).own["classifier.weight"].ravel().tolist()


def test_a_head_on_standardised_features_by_hand(tmp_path: Path) -> None:
    run = fleet(tmp_path).rounds(1)
    assert head_of(run, "a") == [0.25, -0.25]
    assert head_of(run, "b") == pytest.approx([0.5 / 6, -0.5 / 6])  # features 6 and -6
    assert run.memory("a").own["classifier.bias"].tolist() == [0, 0]
    assert run.state.heads == {}


def test_without_standardising_the_step_is_of_the_features_themselves(tmp_path: Path) -> None:
    assert head_of(fleet(tmp_path, standardise=False).rounds(1), "a") == [1.0, -1.0]


def test_training_goes_on_from_the_head_as_it_was_left(tmp_path: Path) -> None:
    """On standardised features the second round starts at 1/2: p = sigmoid(1), slope -(1 - p) for class 0."""
    run = fleet(tmp_path).rounds(2)
    expected = (0.5 + 1 - 1 / (1 + np.exp(-1.0))) / 2
    assert head_of(run, "a") == pytest.approx([expected, -expected], rel=1e-6)


def test_a_frozen_backbone_never_goes_up_and_never_moves(tmp_path: Path) -> None:
    run = fleet(tmp_path).rounds(2)
    assert all(reply.tuned is None and reply.head is None for reply in run.replies.values())
    assert run.state.backbone["trunk.weight"] == [2.0]
    assert set(run.memory("a").own) == {"classifier.weight", "classifier.bias"}


def test_heads_are_averaged_within_a_task_and_never_across(tmp_path: Path) -> None:
    """c has the same task as a and b in the loop-back fleet, d has one of its own."""
    run = fleet(tmp_path, heads="average")
    infos = {name: run.info(name) for name in ("a", "b")}
    other = replace(infos["a"], name="d", data=replace(infos["a"].data, name="other"))
    reply = {n: task_heads.Reply(2, None, head(value)) for n, value in (("a", 1.0), ("b", 3.0), ("d", 8.0))}
    replies = iter([(infos["a"], reply["a"]), (infos["b"], reply["b"]), (other, reply["d"])])
    state = task_heads.merge(run.run, run.state, replies, None)  # type: ignore[arg-type]
    assert state.heads["tiny2"]["classifier.bias"].tolist() == [2.0, 2.0]
    assert state.heads["other"]["classifier.bias"].tolist() == [8.0, 8.0]
    tasks = {a.name: t for a, t in task_heads.plan(run.run, state, (infos["a"], other), None)}  # type: ignore[arg-type]
    assert tasks["d"].head is state.heads["other"]


GROUPS = {"a": 5.0, "tiny2": 7.0}


def head(value: float, n_classes: int = 2) -> Weights:
    shapes = {"classifier.weight": (n_classes, 1), "classifier.bias": (n_classes,)}
    return Weights({name: np.full(shape, value, np.float32) for name, shape in shapes.items()})


def test_a_task_that_joins_later_starts_from_the_backbone(tmp_path: Path) -> None:
    run = fleet(tmp_path).rounds(1)
    alone = fleet(tmp_path / "alone").rounds(2)
    three = from_arrays(np.array([[5.0], [-5.0], [0.0]], np.float32), np.array([0, 1, 2]), 3)
    run.data["c"], run.reports["c"] = pair(5.0), {}
    run.data["d"], run.reports["d"] = Data(three, three.take(np.arange(0)), three, three.unlabelled()), {}
    run.rounds(1)
    assert head_of(run, "c") == pytest.approx([0.05, -0.05])
    assert run.memory("d").own["classifier.weight"].shape == (3, 1)
    assert set(run.state.classes) == {"tiny2", "tiny3"}
    assert [head_of(run, name) for name in "ab"] == [head_of(alone, name) for name in "ab"]


def test_a_tuned_backbone_is_averaged_by_samples_or_stays(tmp_path: Path) -> None:
    averaged = fleet(tmp_path / "a", tune="all", backbone="average").rounds(1)
    assert averaged.state.tuned["trunk.weight"] == [3.0]
    assert set(averaged.state.backbone) == set()
    assert set(averaged.memory("a").own) == {"classifier.weight", "classifier.bias"}
    own = fleet(tmp_path / "b", tune="all").rounds(2)
    assert own.state.backbone["trunk.weight"] == [2.0]
    assert own.memory("a").own["trunk.weight"] == [4.0]


def test_the_last_stage_is_what_the_last_trunk_tensor_belongs_to(tmp_path: Path) -> None:
    run = loopback(task_heads, replace(CASES[3], config=Config(tune="last", backbone="average")), tmp_path).rounds(1)
    assert set(run.state.tuned) == {"norm.scale", "norm.mean", "norm.count"}
    assert set(run.state.backbone) == {"trunk.weight"}


def test_own_statistics_stay_and_are_taken_once(tmp_path: Path) -> None:
    run = loopback(task_heads, CASES[2], tmp_path).rounds(1)
    kept = run.memory("bert").own["norm.mean"]
    assert run.state.backbone["norm.mean"].tolist() == [0, 0]
    assert np.abs(kept).max() > 0
    run.rounds(1)
    assert np.array_equal(run.memory("bert").own["norm.mean"], kept)


def test_the_result_is_the_backbone_and_the_heads_by_task(tmp_path: Path) -> None:
    run = fleet(tmp_path, tune="all", backbone="average", heads="average").rounds(1)
    found = task_heads.result(run.run, run.state)
    assert set(found) == {"weights", "head.tiny2", "classes.tiny2"}
    assert set(found["weights"]) == {"trunk.weight"}
    again = loopback(task_heads, replace(BY_HAND, start=found), tmp_path / "again")
    assert again.state.backbone["trunk.weight"] == [3.0]
    assert again.state.heads["tiny2"]["classifier.bias"].tolist() == [1.0, 1.0]
    assert again.state.classes == run.state.classes


def test_a_head_of_an_earlier_run_is_for_agents_with_its_classes(tmp_path: Path) -> None:
    start = tuning.heads_as_payloads({"tiny2": head(1.0)}, {"tiny2": "ff" * 32})  # as many, but others
    run = loopback(task_heads, replace(BY_HAND, start=start), tmp_path)
    with pytest.raises(RemoteFault, match="agent a: its task 'tiny2' has other classes than the run knows"):
        run.rounds(1)


def test_backbones_of_agents_and_tasks_go_to_theirs(tmp_path: Path) -> None:
    start = {f"weights.{group}": Weights({"trunk.weight": np.array([w], np.float32)}) for group, w in GROUPS.items()}
    run = loopback(task_heads, replace(BY_HAND, start=start), tmp_path)
    run.data["c"], run.reports["c"] = pair(1.0), {}
    tasks = dict(run.plan(tuple(run.info(name) for name in "abc"), 1, "train"))
    assert {info.name: task.backbone["trunk.weight"] for info, task in tasks.items()} == {"a": [5], "b": [7], "c": [7]}
    assert set(task_heads.result(run.run, run.state)) == {"weights", *start}
    averaged = replace(BY_HAND, config=Config(tune="all", backbone="average"), start=start)
    with pytest.raises(ConfigError, match=r"trained apart are not averaged: set .method. backbone = 'own'"):
        loopback(task_heads, averaged, tmp_path)


# ------------------------------------------------------------------ what is refused


def test_two_tasks_of_one_name_with_other_classes(tmp_path: Path) -> None:
    run = fleet(tmp_path).rounds(1)
    info = run.info("b")
    other = replace(info, data=replace(info.data, classes_sha256="ff" * 32))
    with pytest.raises(RemoteFault, match="agent b: its task 'tiny2' has other classes than the run knows"):
        task_heads.merge(run.run, run.state, iter([(other, run.replies["b"])]), None)  # type: ignore[arg-type]


def test_a_task_whose_classes_changed_on_the_device(tmp_path: Path) -> None:
    run = fleet(tmp_path).rounds(1)
    site = run.site("a", 2, "work")
    three = from_arrays(np.ones((2, 1), np.float32), np.array([0, 2]), 3)
    site.data = replace(site.data, train=three)
    with pytest.raises(
        ConfigError, match=r"classes of this agent's data have changed .* expected 2 \(class0, class1\)"
    ):
        task_heads.work(run.tasks["a"], run.memory("a"), site)


def test_a_head_of_another_number_of_classes(tmp_path: Path) -> None:
    run = fleet(tmp_path).rounds(1)
    task = replace(run.tasks["a"], head=head(1.0, n_classes=5))
    with pytest.raises(ConfigError, match=r"not of its 2 classes: tensor 'classifier.weight', expected \[2, 1\]"):
        task_heads.work(task, task_heads.Memory(), run.site("a", 2, "work"))


@pytest.mark.parametrize(
    ("heads", "sent", "text"),
    [
        ("average", head(1.0, n_classes=3), r"tensor 'classifier.weight' has another shape, expected \[2, 1\]"),
        ("average", Weights({"x": np.zeros(1, np.float32)}), "tensor 'classifier.weight' is missing"),
        ("own", head(1.0), "tensor 'classifier.weight' is not part of the run's model"),
    ],
)
def test_a_head_that_is_none_is_refused_though_it_is_the_first(
    heads: Any, sent: Weights, text: str, tmp_path: Path
) -> None:
    run = fleet(tmp_path, heads=heads)
    run.rounds(1)
    state = replace(run.state, heads={})
    with pytest.raises(RemoteFault, match=f"agent b: {text}"):
        task_heads.merge(run.run, state, iter([(run.info("b"), task_heads.Reply(2, None, sent))]), None)  # type: ignore[arg-type]


def test_kept_features_take_no_objective_that_augments(tmp_path: Path) -> None:
    training = replace(BY_HAND.training, objective="cross_entropy_augmented")
    with pytest.raises(ConfigError, match=r"a head on kept features sees no images.* got 'cross_entropy_augmented'"):
        loopback(task_heads, replace(BY_HAND, training=training), tmp_path)


def test_a_backbone_of_another_architecture_names_the_first_tensor(tmp_path: Path) -> None:
    wide = TinyModel(width=5).initial(np.random.default_rng(0)).without(["classifier.weight", "classifier.bias"])
    with pytest.raises(ConfigError, match=r"'trunk.weight' must be \[2, 3\], got \[5, 3\]"):
        loopback(task_heads, replace(CASES[0], start={"weights": wide}), tmp_path)


def test_an_objective_without_labels_is_refused(tmp_path: Path) -> None:
    class SelfSupervised(Backbone):
        def parameters(self, **variant: Scalar) -> dict[str, Spec]:
            return {**SPECS, "objective.weight": Spec((1,), part="objective")}

        def initial(self, rng: np.random.Generator, **variant: Scalar) -> Weights:
            return super().initial(rng).updated({"objective.weight": np.ones(1, np.float32)})

    with pytest.raises(ConfigError, match=r"heads are trained with labels: set .objective. name = 'cross_entropy'"):
        loopback(task_heads, replace(BY_HAND, model=SelfSupervised()), tmp_path)


def test_a_lost_reply_leaves_the_others_alone(tmp_path: Path) -> None:
    run = fleet(tmp_path)
    run.round(faults=Faults(lost=("a",)))
    assert head_of(run, "b") == pytest.approx([0.5 / 6, -0.5 / 6])
    assert run.memory("a").own is None


def test_a_head_of_a_task_that_no_agent_has_is_kept_and_disturbs_nobody(tmp_path: Path) -> None:
    start = {"weights": Weights({"trunk.weight": np.array([2.0], np.float32)}), "head.elsewhere": head(3.0)}
    run = loopback(task_heads, replace(BY_HAND, start=start), tmp_path).rounds(1)
    assert head_of(run, "a") == [0.25, -0.25]  # as without it
    assert task_heads.result(run.run, run.state)["head.elsewhere"]["classifier.bias"].tolist() == [3.0, 3.0]
