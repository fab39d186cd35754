"""FedSimCLR by hand, with a learner that pulls every parameter to the mean of the images; lr 0.5.

Agent a has two images of value 2, b six of value 6. From 1, one step: a 1 + .5 (2 - 1) = 1.5, b 1 + .5 (6 - 1) = 3.5.
By images (2 * 1.5 + 6 * 3.5) / 8 = 3, uniform 2.5.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common import knn
from common.errors import ConfigError
from common.method import Fitted, Scalar, Scores, Spec, Term, Training
from common.methods import fedsimclr
from common.methods.fedsimclr import Config
from common.payloads import Array, Weights
from common.samples import Samples, from_arrays
from tests.methods.contract import Case, loopback
from tests.methods.loopback import Data, Faults, Loopback

SPECS = {
    "trunk.weight": Spec((2,), layer="trunk"),
    "norm.scale": Spec((1,), layer="norm"),
    "norm.mean": Spec((1,), kind="buffer", layer="norm"),
    "norm.count": Spec((), "int64", "counter", "norm"),
    "objective.weight": Spec((1,), layer="objective", part="objective"),
}


class Model:
    """Every parameter starts at 1, a running mean at 0; like a net under simclr, it has a part of the objective's."""

    def parameters(self, **variant: Scalar) -> dict[str, Spec]:
        return dict(SPECS)

    def initial(self, rng: np.random.Generator, **variant: Scalar) -> Weights:
        arrays = {n: np.full(s.shape, s.kind == "param", s.dtype) for n, s in SPECS.items()}
        return Weights(arrays, {n: s.kind for n, s in SPECS.items()})


class Learner(Model):
    def __init__(self, n_classes: int, **variant: Scalar) -> None:
        assert n_classes == 0
        self.n_classes = n_classes

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
        arrays: dict[str, Array] = dict(weights)
        mean = np.float32(samples.read().mean())
        for _ in range(training.epochs * max(1, len(samples) // training.batch)):
            for name, spec in SPECS.items():
                if spec.kind == "param":
                    arrays[name] = arrays[name] + np.float32(training.lr) * (mean - arrays[name])
            arrays["norm.mean"] = np.float32(0.9) * arrays["norm.mean"] + np.float32(0.1) * mean
            arrays["norm.count"] = np.asarray(arrays["norm.count"] + 1)
        return Fitted(Weights(arrays, weights.kinds), 0.0, 1)

    def embed(self, weights: Weights, samples: Samples, layer: str = "embedding") -> Scores:
        """The images beside the weights: so a test sees which weights `predict` used."""
        shown = [np.ravel(weights[n]) for n in ("trunk.weight", "norm.mean")]
        x = samples.read().reshape(len(samples), -1)
        return np.concatenate([x, np.tile(np.concatenate(shown), (len(samples), 1))], axis=1).astype(np.float32)


def images(n: int, value: float) -> Data:
    samples = from_arrays(np.full((n, 1), value, np.float32), np.zeros(n, np.int64), 2)
    return Data(samples, samples.take(np.arange(0)), samples, samples.unlabelled())


def case(name: str, config: Config, *, keeps_memory: bool = False, **other: object) -> Case:
    return Case(name, config, head="agent", keeps_memory=keeps_memory, model=Model(), learner=Learner, **other)


CASES = (
    case("plain", Config()),
    case("uniform", Config(aggregation="uniform", bn="re-estimated")),
    case("own batch norm", Config(bn="local"), keeps_memory=True),
    case("by likeness", Config(aggregation="l_dawa")),
    case("by task", Config(groups="task", bn="local"), keeps_memory=True),
    case("mixing", Config(mixing=0.7, bn="local"), keeps_memory=True),
)
BY_HAND = case(
    "by hand",
    Config(),
    training=Training(lr=0.5, batch=8),
    data=lambda: {"a": images(2, 2.0), "b": images(6, 6.0)},
)


def fleet(folder: Path, **config: object) -> Loopback:
    return loopback(fedsimclr, replace(BY_HAND, config=Config(**config)), folder)


def trunk(of: Loopback) -> float:
    return float(of.state.weights["trunk.weight"][0])


def test_mean_by_images_and_uniform(tmp_path: Path) -> None:
    assert trunk(fleet(tmp_path / "a").rounds(1)) == 3.0
    assert trunk(fleet(tmp_path / "b", aggregation="uniform").rounds(1)) == 2.5


def test_l_dawa_weighs_each_tensor_by_its_angle(tmp_path: Path) -> None:
    """Agent a is 45 degrees off, b straight on: cosines 1/sqrt(2) and 1, buffers plain, opposite ones left out."""
    start = fleet(tmp_path, aggregation="l_dawa")
    like = Weights({**start.state.weights, "trunk.weight": np.array([1, 0], np.float32)}, start.state.weights.kinds)
    a = like.updated({"trunk.weight": np.array([2, 2], np.float32), "norm.mean": np.array([1], np.float32)})
    b = like.updated({"trunk.weight": np.array([3, 0], np.float32), "norm.scale": np.array([-1], np.float32)})
    infos = [start.info("a"), start.info("b")]
    replies = iter([(infos[0], fedsimclr.Reply(a, 2)), (infos[1], fedsimclr.Reply(b, 6))])
    merged = fedsimclr.merge(start.run, replace(start.state, weights=like), replies, None).weights  # type: ignore[arg-type]
    cosine = np.sqrt(0.5)
    np.testing.assert_allclose(
        merged["trunk.weight"], [(2 * cosine + 3) / (1 + cosine), 2 * cosine / (1 + cosine)], rtol=1e-6
    )
    assert merged["norm.mean"] == [0.5]
    assert merged["norm.scale"] == [1.0]  # b turned it round


def test_groups_are_averaged_by_themselves_and_go_on_by_themselves(tmp_path: Path) -> None:
    """Alone, a goes 1, 1.5, 1.75 and b 1, 3.5, 4.75; the common backbone stays at its first values."""
    alone = fleet(tmp_path / "a", groups="agent").rounds(2)
    found = fedsimclr.result(alone.run, alone.state)
    assert {n: float(w["trunk.weight"][0]) for n, w in found.items()} == {
        "weights": 1,
        "weights.a": 1.75,
        "weights.b": 4.75,
    }
    by_task = fleet(tmp_path / "b", groups="task").rounds(1)
    assert by_task.state.groups["tiny2"]["trunk.weight"].tolist() == [3.0, 3.0]
    assert all("objective.weight" not in weights for weights in found.values())


def test_mixing_keeps_a_share_of_ones_own_that_depends_on_the_distance(tmp_path: Path) -> None:
    """tau .5. After round 1 the common model is at 3 and a's own at 1.5, so lambda = .5 / distance and mu = .5.

    a starts round 2 at 3 + .5 (1.5 - 3) = 2.25 and ends at 2.25 + .5 (2 - 2.25) = 2.125; b at 3.25 and ends at 4.625.
    By images (2 * 2.125 + 6 * 4.625) / 8 = 4. In round 3 a's distance has grown from 1.5 to 1.875: mu = .5 * 1.25.
    """
    run = fleet(tmp_path, mixing=0.5).rounds(2)
    assert trunk(run) == 4.0
    run.rounds(1)
    begun = 4 + 0.625 * (2.125 - 4)
    assert run.replies["a"].weights["trunk.weight"][0] == pytest.approx(begun + 0.5 * (2 - begun), rel=1e-6)


def test_the_projection_head_is_averaged_and_left_out_of_the_result(tmp_path: Path) -> None:
    run = fleet(tmp_path).rounds(1)
    assert run.state.weights["objective.weight"] == [3.0]
    assert set(fedsimclr.result(run.run, run.state)["weights"]) == set(SPECS) - {"objective.weight"}


def test_own_batch_norm_stays_with_its_agent(tmp_path: Path) -> None:
    run = fleet(tmp_path, bn="local").rounds(1)
    assert not [name for name in run.state.weights if name.startswith("norm")]
    assert run.memory("a").own["norm.scale"] == [1.5]
    assert run.memory("b").own["norm.scale"] == [3.5]
    found = fedsimclr.result(run.run, run.state)
    for agent, own in (("a", 1.5), ("b", 3.5)):  # a later run of the same agents starts with what was trained
        assert found[f"weights.{agent}"]["norm.scale"] == [own]
        assert found[f"weights.{agent}"]["trunk.weight"].tolist() == [3, 3]
    by_task = fleet(tmp_path / "task", bn="local", groups="task").rounds(1)
    assert fedsimclr.result(by_task.run, by_task.state)["weights.b"]["norm.scale"] == [3.5]


def test_statistics_are_taken_anew_before_the_common_model_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fleet(tmp_path, bn="re-estimated").rounds(1)
    seen: dict[int, np.ndarray] = {}
    monkeypatch.setattr(knn, "scores", lambda q, *_, **__: seen.setdefault(len(q), q)[:, :2])
    run.evaluate(1, "train")
    for n, mean in ((2, 2.0), (6, 6.0)):  # 40 steps and more: nothing is left of the mean over agents
        assert seen[n][0, -1] == pytest.approx(mean, rel=0.02)


class Plain(Learner):
    """An embedding is the image."""

    def embed(self, weights: Weights, samples: Samples, layer: str = "embedding") -> Scores:
        return samples.read().astype(np.float32)


@pytest.mark.parametrize(("neighbours", "votes"), [(1, [1, 0]), (2, [3 / 4, 1 / 4]), (3, [9 / 13, 4 / 13])])
def test_as_many_neighbours_vote_as_asked_at_the_temperature_asked(
    tmp_path: Path, neighbours: int, votes: list[float]
) -> None:
    """With 1 / t = ln 3 an image at right angles has a third of the vote of a like one, an opposite one a ninth."""
    config = Config(neighbours=neighbours, temperature=1 / np.log(3))
    bank = from_arrays(np.array([[1, 0], [0, 1], [-1, 0]], np.float32), np.array([0, 1, 1]), 2)
    data = Data(bank, bank.take(np.arange(0)), bank.take(np.arange(1)), bank.unlabelled())
    of_three = replace(BY_HAND, config=config, learner=Plain, data=lambda: {"a": data})
    run = loopback(fedsimclr, of_three, tmp_path)
    run.evaluate(1, "train")
    np.testing.assert_allclose(run.predictions["a", "merged", 0]["knn"], [votes], rtol=1e-6)


def test_an_agent_with_one_image_says_why_it_cannot(tmp_path: Path) -> None:
    run = fleet(tmp_path)
    run.data["c"], run.reports["c"] = images(1, 9.0), {}
    run.rounds(1)
    assert "c" not in run.replies
    assert trunk(run) == 3.0


def test_a_lost_agent_is_not_waited_for(tmp_path: Path) -> None:
    run = fleet(tmp_path)
    run.round(faults=Faults(lost=("b",)))
    assert trunk(run) == 1.5


def test_an_objective_that_needs_labels_is_refused(tmp_path: Path) -> None:
    class Supervised(Model):
        def parameters(self, **variant: Scalar) -> Mapping[str, Spec]:  # type: ignore[override]
            return {n: s for n, s in SPECS.items() if s.part != "objective"}

    with pytest.raises(ConfigError, match=r"set .objective. name = 'simclr', got 'cross_entropy'"):
        loopback(fedsimclr, replace(BY_HAND, model=Supervised()), tmp_path)


def test_batches_of_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"contrast needs two images in a batch: raise .optimiser. batch, got 1"):
        loopback(fedsimclr, replace(BY_HAND, training=Training(batch=1)), tmp_path)


def test_a_later_run_starts_from_the_backbone_with_a_new_projection_head(tmp_path: Path) -> None:
    run = fleet(tmp_path / "a").rounds(1)
    later = replace(BY_HAND, start=fedsimclr.result(run.run, run.state))
    state = loopback(fedsimclr, later, tmp_path / "b").state
    assert state.weights["trunk.weight"].tolist() == [3, 3]
    assert state.weights["objective.weight"] == [1.0]


def test_a_backbone_of_another_architecture_is_refused_by_its_first_tensor(tmp_path: Path) -> None:
    other = Weights({"trunk.weight": np.ones(5, np.float32)})
    with pytest.raises(ConfigError, match=r"'trunk.weight' must be \[2\], got \[5\]"):
        loopback(fedsimclr, replace(BY_HAND, start={"weights": other}), tmp_path)
    with pytest.raises(ConfigError, match=r"the model has no tensor 'layer1\.weight'"):
        loopback(fedsimclr, replace(BY_HAND, start={"weights": Weights({"layer1.weight": np.ones(1)})}), tmp_path)


def test_likeness_needs_one_common_backbone() -> None:
    with pytest.raises(ValueError, match="l_dawa compares with one common backbone, got groups = 'agent'"):
        Config(aggregation="l_dawa", groups="agent")


@pytest.mark.parametrize("wrong", [{"mixing": 1.5}, {"neighbours": 0}, {"temperature": 0.0}])
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected mixing in"):
        Config(**wrong)
