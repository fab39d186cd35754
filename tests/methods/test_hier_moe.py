"""Experts by hand: a tree of two nodes with two classes each, and the closed-form learner at lr 0.5.

Agent a has one sample of class0 with value 2, agent b three of class2 with value 6. Round 1 trains the root on all:
a 1, b 3, mean (1 + 3 * 3) / 4 = 2.5. Round 2 trains A, which only a has: 1. Round 3 trains B, which only b has: 3.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common import experts, models
from common.errors import ConfigError, RemoteFault
from common.method import AgentInfo, Learner, ModelSpec, RunSpec, Scalar, Skip, Training
from common.methods import hier_moe
from common.methods.hier_moe import Config, Reply, Task
from common.payloads import Blob, Payload, Weights
from common.samples import Samples, from_arrays
from edge_client import learners
from tests.methods import recorded
from tests.methods.closed_form import PullLearner, PullModel
from tests.methods.contract import Case, loopback
from tests.methods.loopback import Data, Loopback
from tests.methods.test_flat_softmax import EDGES
from tests.methods.tiny import DIM, TinyModel

MLP = ModelSpec("mlp", {"input": str(DIM), "hidden": 5})


def numpy_learner(n_classes: int, **variant: Scalar) -> Learner:
    """The real numpy learner; on a trunk's features the linear one, as a site gives it."""
    spec, n = models.varied(MLP, n_classes, {"model": "linear", **variant} if "input" in variant else variant)
    return learners.make("numpy", spec, n)


def trunk() -> Weights:
    return models.load(MLP, 4).initial(np.random.default_rng(7))


CASES = (
    Case("one expert a round", Config(), taxonomy=EDGES),
    Case(
        "all levers",
        Config(
            experts_per_round=3,
            targets="leaves",
            widths=experts.Widths("width", root=4, inner=3, bottom=2),
            decode=("greedy", "beam", "product", "distribution"),
            calibrate=True,
        ),
        taxonomy=EDGES,
    ),
    Case("warm, by resources", Config(schedule="resource_aware", init="parent"), taxonomy=EDGES, rounds=3),
    Case(
        "on a frozen trunk",
        Config(experts_per_round=3, trunk="shared_frozen"),
        taxonomy=EDGES,
        model=models.load(MLP, 4),
        learner=numpy_learner,
        start={"weights": trunk()},
    ),
)


def constant(value: float, label: int, n: int) -> Data:
    samples = from_arrays(np.full((n, 1), value, np.float32), np.full(n, label), 4)
    return Data(samples, samples.take(np.arange(0)), samples, samples.unlabelled())


BY_HAND = Case(
    "by hand",
    Config(),
    training=Training(lr=0.5, epochs=1),
    model=PullModel(),
    learner=PullLearner,
    data=lambda: {"a": constant(2.0, 0, 1), "b": constant(6.0, 2, 3)},
    taxonomy=EDGES,
    rounds=3,
)


def values(fleet: Loopback, tensor: str = "trunk.weight") -> dict[str, float]:
    return {node: float(weights[tensor][0]) for node, weights in fleet.state.experts.items()}


# ------------------------------------------------------------------ rounds


def test_one_cycle_by_hand(tmp_path: Path) -> None:
    fleet = loopback(hier_moe, BY_HAND, tmp_path).rounds(1)
    assert values(fleet) == {"all": 2.5, "A": 0, "B": 0}
    assert values(fleet.rounds(1)) == {"all": 2.5, "A": 1, "B": 0}
    assert values(fleet.rounds(1)) == {"all": 2.5, "A": 1, "B": 3}
    assert fleet.state.trained == {"all": 1, "A": 1, "B": 1}
    assert values(fleet.rounds(1))["all"] == pytest.approx((1 * 2.25 + 3 * 4.25) / 4)


def test_experts_that_nobody_trains_stay_the_same_bits(tmp_path: Path) -> None:
    fleet = loopback(hier_moe, CASES[0], tmp_path)
    before = {node: {n: a.tobytes() for n, a in w.items()} for node, w in fleet.state.experts.items()}
    fleet.rounds(1)
    after = {node: {n: a.tobytes() for n, a in w.items()} for node, w in fleet.state.experts.items()}
    assert after["all"] != before["all"]
    assert {n: after[n] for n in "AB"} == {n: before[n] for n in "AB"}


def test_a_known_lack_of_samples_means_no_task_and_an_unknown_one_a_skip(tmp_path: Path) -> None:
    fleet = loopback(hier_moe, BY_HAND, tmp_path).rounds(2)
    assert set(fleet.tasks) == {"a"}
    fleet = loopback(hier_moe, BY_HAND, tmp_path)
    told = fleet.info

    def secret(name: str) -> AgentInfo:
        return replace(told(name), data=replace(told(name).data, counts=None), reports=())

    fleet.info = secret  # type: ignore[method-assign]
    fleet.rounds(2)
    assert set(fleet.tasks) == {"a", "b"}
    assert set(fleet.replies) == {"a"}
    assert values(fleet) == {"all": 2.5, "A": 1, "B": 0}


def test_an_agent_with_nothing_under_its_nodes_says_which(tmp_path: Path) -> None:
    fleet = loopback(hier_moe, BY_HAND, tmp_path)
    task = Task("train", {"B": fleet.state.experts["B"]}, None)
    with pytest.raises(Skip, match="no samples under 'B'"):
        hier_moe.work(task, hier_moe.Memory(), fleet.site("a", 1, "work"))


def test_a_first_start_from_the_parent_keeps_the_head(tmp_path: Path) -> None:
    case = replace(BY_HAND, config=Config(init="parent"))
    fleet = loopback(hier_moe, case, tmp_path).rounds(2)
    assert values(fleet) == {"all": 2.5, "A": 2.25, "B": 0}  # 2.5 + .5 (2 - 2.5)
    assert values(fleet, "classifier.weight") == {"all": 2.5, "A": 1, "B": 0}
    fleet.rounds(2)  # B from the parent as it is now, then the root
    assert fleet.state.untouched == ()
    assert values(fleet.rounds(1))["A"] == 2.125  # not from its parent again


def test_an_untrained_parent_gives_nothing(tmp_path: Path) -> None:
    fleet = loopback(hier_moe, replace(BY_HAND, config=Config(init="parent", experts_per_round=3)), tmp_path)
    assert values(fleet.rounds(1)) == {"all": 2.5, "A": 1, "B": 3}


def test_agents_train_several_experts_in_one_task_and_report_each(tmp_path: Path) -> None:
    fleet = loopback(hier_moe, replace(BY_HAND, config=Config(experts_per_round=3)), tmp_path).rounds(1)
    assert set(fleet.replies["a"].experts) == {"all", "A"}
    assert fleet.replies["b"].n_samples == {"all": 3, "B": 3}
    assert fleet.reports["a"]["expert A"].n_samples == 1


# ------------------------------------------------------------------ levers


class Sure(PullLearner):
    """Answers the first output with log-odds of 2 ln 3, whatever it is shown."""

    def scores(self, weights: Weights, samples: Samples) -> np.ndarray[Any, Any]:
        return np.tile(np.array([2 * math.log(3), 0.0]), (len(samples), 1))


def test_a_temperature_makes_an_expert_as_sure_as_it_is_right(tmp_path: Path) -> None:
    """Three of four held-out samples are right, so p = 3/4, log-odds ln 3: half of what it says, T = 2."""
    held = from_arrays(np.zeros((4, 1), np.float32), np.array([0, 0, 0, 1]), 4)
    a = replace(constant(2.0, 0, 1), holdout=held)
    case = replace(BY_HAND, config=Config(calibrate=True), learner=Sure, rounds=1, data=lambda: {"a": a})
    fleet = loopback(hier_moe, case, tmp_path).rounds(1)
    assert fleet.state.temperatures["A"] == pytest.approx(2.0)
    assert fleet.state.temperatures["all"] == pytest.approx(0.25)  # right on all four: as sure as the grid allows
    assert fleet.state.temperatures["B"] == 1.0  # nobody has samples
    assert fleet.state.experts["A"]["trunk.weight"] == [0]  # calibrating trains nothing


def test_every_decoder_reads_the_same_tree(tmp_path: Path) -> None:
    fleet = loopback(hier_moe, CASES[1], tmp_path).rounds(2)
    task = next(task for _, task in hier_moe.plan_evaluation(fleet.run, fleet.state, (fleet.info("anna"),), None))  # type: ignore[arg-type]
    site = fleet.site("anna", 2, "evaluate")
    found = hier_moe.predict(task, None, hier_moe.Memory(), site, site.data.test)
    assert set(found) == {"model", "beam", "product", "distribution"}
    assert (found["product"].argmax(1) == found["distribution"].argmax(1)).all()
    assert np.allclose(np.exp(found["distribution"]).sum(axis=1), 1)
    n = len(site.data.test)
    assert site.counts["inputs"] == n
    assert site.counts["experts greedy"] == 2 * n
    assert site.counts["experts distribution"] == 3 * n
    assert site.counts["experts greedy"] <= site.counts["experts beam"] <= 3 * n
    assert site.counts["inputs all"] == n == site.counts["inputs A"] + site.counts["inputs B"]


class Told(PullLearner):
    """Gives its first output the probability that is its head's weight."""

    def scores(self, weights: Weights, samples: Samples) -> np.ndarray[Any, Any]:
        p = weights["classifier.weight"][0]
        return np.tile(np.log([p, 1 - p]), (len(samples), 1))


@pytest.mark.parametrize(("width", "found", "n_experts"), [(1, 0, 2), (2, 2, 3)])
def test_a_beam_keeps_as_many_paths_as_it_is_wide(tmp_path: Path, width: int, found: int, n_experts: int) -> None:
    """Under A, of .6, each class has .5 * .6 = .3; class2 under B, of .4, has .9 * .4 = .36."""
    case = replace(BY_HAND, config=Config(decode=("beam",), beam_width=width), learner=Told)
    site = loopback(hier_moe, case, tmp_path).site("a", 1, "evaluate")
    heads = {"all": 0.6, "A": 0.5, "B": 0.9}
    told = {v: Weights(dict.fromkeys(PullModel().parameters(), np.array([p]))) for v, p in heads.items()}
    readings = hier_moe.predict(Task("use", told, None), None, hier_moe.Memory(), site, site.data.test)
    assert readings["model"].argmax(1).tolist() == [found]
    assert site.counts["experts beam"] == n_experts


def test_a_part_of_a_tree_predicts_nothing(tmp_path: Path) -> None:
    fleet = loopback(hier_moe, CASES[0], tmp_path).rounds(1, evaluate=True)
    assert set(fleet.predictions["anna", "start", 0]) == set()
    assert set(fleet.predictions["anna", "merged", 0]) == {"model", "product"}


def test_with_leaves_as_targets_children_are_sums() -> None:
    family = experts.Family(tree(), "leaves", experts.Widths(), on_trunk=False)
    assert family.outputs("all") == ("class0", "class1", "class2", "class3")
    assert family.labels("B").tolist() == [-1, -1, 0, 1]
    by_child = family.by_child("all", np.log([[0.1, 0.2, 0.3, 0.4]]))
    assert np.exp(by_child).tolist() == [[pytest.approx(0.3), pytest.approx(0.7)]]


def test_width_goes_by_the_place_of_a_node() -> None:
    family = experts.Family(tree(), "children", experts.Widths("width", root=4, inner=3, bottom=2), on_trunk=False)
    assert family.variant("all") == {"n_classes": 2, "width": 4}
    assert family.variant("A") == {"n_classes": 2, "width": 2}


def test_on_a_frozen_trunk_only_heads_travel(tmp_path: Path) -> None:
    fleet = loopback(hier_moe, CASES[3], tmp_path).rounds(1)
    assert {name for w in fleet.state.experts.values() for name in w} == {"classifier.weight", "classifier.bias"}
    assert fleet.state.trunk is not None
    assert np.array_equal(fleet.state.trunk["fc1.weight"], trunk()["fc1.weight"])
    assert set(fleet.state.trunk) == {"fc1.weight", "fc1.bias"}
    assert fleet.state.model_bytes["A"] == 2 * 2 * (2 * 5 + 2) * 4 - (2 * 5 + 2) * 4  # with gradients and momentum: x 3


# ------------------------------------------------------------------ a finished tree


def tree() -> Any:
    return experts.tree_of(replace_run(EDGES))


def replace_run(edges: tuple[tuple[str, str], ...], classes: tuple[str, ...] = CASES[0].classes or ()) -> RunSpec[Any]:
    return RunSpec("r", "hier_moe", Config(), ModelSpec("tiny"), Training(), 1, 1, classes=classes, taxonomy=edges)


def result_of_three_classes() -> Mapping[str, Payload]:
    """A tree in which class1 is missing, so that A has one child and is collapsed: the root has class0 and B."""
    run = replace_run(tuple(e for e in EDGES if e[1] != "class1"), ("class0", "class2", "class3"))
    state = hier_moe.init(run, TinyModel(), {}, np.random.default_rng(1))
    assert set(state.experts) == {"all", "B"}
    return hier_moe.result(run, state)


def test_a_tree_grows_by_the_names_of_its_outputs() -> None:
    before = result_of_three_classes()
    classes = ("class3", "class1", "class0", "class2")  # another order: B comes first now
    state = hier_moe.init(replace_run(EDGES, classes), TinyModel(), before, np.random.default_rng(2))
    old, new = before["all"], state.experts["all"]
    assert isinstance(old, Weights)
    assert new["classifier.bias"].tolist() == [old["classifier.bias"][1], old["classifier.bias"][0]]
    assert np.array_equal(new["trunk.weight"], old["trunk.weight"])
    assert np.array_equal(state.experts["B"]["classifier.weight"], before["B"]["classifier.weight"][::-1])  # type: ignore[index]
    assert state.untouched == ("A",)


def test_an_unchanged_expert_of_an_earlier_run_keeps_its_bits() -> None:
    run = replace_run(EDGES)
    state = hier_moe.init(run, TinyModel(), {}, np.random.default_rng(1))
    again = hier_moe.init(run, TinyModel(), hier_moe.result(run, state), np.random.default_rng(2))
    for node, weights in state.experts.items():
        assert {n: a.tobytes() for n, a in weights.items()} == {n: a.tobytes() for n, a in again.experts[node].items()}
    assert again.untouched == ()


def test_only_the_named_experts_are_trained(tmp_path: Path) -> None:
    case = replace(BY_HAND, config=Config(only=("B",)))
    assert values(loopback(hier_moe, case, tmp_path).rounds(2)) == {"all": 0, "A": 0, "B": 4.5}


def test_a_subtree_is_what_a_device_for_its_classes_needs() -> None:
    run = replace_run(EDGES)
    whole = hier_moe.result(run, hier_moe.init(run, TinyModel(), {}, np.random.default_rng(1)))
    cut = replace_run((("B", "class2"), ("B", "class3")), ("class2", "class3"))
    state = hier_moe.init(cut, TinyModel(), whole, np.random.default_rng(2))
    assert set(state.experts) == {"B"}
    assert np.array_equal(state.experts["B"]["classifier.weight"], whole["B"]["classifier.weight"])  # type: ignore[index]


def test_the_result_says_what_outputs_mean() -> None:
    table = result_of_three_classes()["outputs"]
    assert isinstance(table, Blob)
    assert table.data == b"node,output\nall,class0\nall,B\nB,class2\nB,class3\n"


# ------------------------------------------------------------------ what is refused


def test_a_taxonomy_that_changed_between_rounds_is_named_on_both_sides(tmp_path: Path) -> None:
    fleet = loopback(hier_moe, CASES[0], tmp_path)
    renamed = tuple((p.replace("B", "C"), c.replace("B", "C")) for p, c in EDGES)
    other = replace(fleet.run, taxonomy=renamed)
    with pytest.raises(RemoteFault, match=r"run contract: the taxonomy has changed between rounds: .* 'B'"):
        list(hier_moe.plan(other, fleet.state, (fleet.info("anna"),), None))  # type: ignore[arg-type]
    site = fleet.site("anna", 1, "work")
    site.run = other
    with pytest.raises(RemoteFault, match="has no inner node 'B'"):
        hier_moe.work(Task("train", dict(fleet.state.experts), None), hier_moe.Memory(), site)


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (Reply({"C": Weights({})}, {"C": 1}), "agent anna: expert 'C' is of no inner node"),
        (Reply({"B": Weights({})}, {"B": 1}), "agent anna: tensor 'trunk.weight' is missing"),
        (Reply({"B": Weights({})}, {"B": -1}), "agent anna: the weight of its reply must be finite"),
    ],
)
def test_a_reply_that_does_not_fit_names_agent_and_node(tmp_path: Path, reply: Reply, text: str) -> None:
    fleet = loopback(hier_moe, CASES[0], tmp_path)
    with pytest.raises(RemoteFault, match=text):
        hier_moe.merge(
            fleet.run, fleet.state, iter([(fleet.info("anna"), reply)]), fleet._new_step(1, "train", "merge")
        )


@pytest.mark.parametrize(
    ("losses", "text"),
    [({"C": (1.0,) * 25}, "losses of 'C', which is no inner node"), ({"B": (1.0,)}, "expert 'B' must be 25 finite")],
)
def test_losses_that_do_not_fit_name_agent_and_node(
    tmp_path: Path, losses: dict[str, tuple[float, ...]], text: str
) -> None:
    fleet = loopback(hier_moe, CASES[0], tmp_path)
    step = fleet._new_step(1, "calibrate", "merge")
    with pytest.raises(RemoteFault, match=f"agent anna: .*{text}"):
        hier_moe.merge(fleet.run, fleet.state, iter([(fleet.info("anna"), Reply(losses=losses))]), step)


@pytest.mark.parametrize(
    ("case", "text"),
    [
        (replace(CASES[0], taxonomy=None), r"set \[data\] taxonomy"),
        (replace(CASES[0], config=Config(only=("class1",))), r"\[method\] only names 'class1', which has no expert"),
        (
            replace(CASES[0], config=Config(only=("C",)), taxonomy=(*EDGES[1:], ("all", "C"), ("C", "A"))),
            "names 'C', .* it has one child and is collapsed",
        ),
        (replace(CASES[3], start={}), "needs the trunk of an earlier run"),
        (replace(CASES[3], start={"weights": Weights({})}), r"tensor 'fc1.weight' of the trunk must be \[5, 3\]"),
        (
            replace(CASES[0], taxonomy=tuple((p.replace("A", "trunk"), c.replace("A", "trunk")) for p, c in EDGES)),
            "taxonomy node 'trunk' has a name that results use",
        ),
        (
            replace(CASES[0], start={"B": Weights({"trunk.weight": np.zeros((9, 9))})}),
            r"tensor 'trunk.weight' of expert 'B' must be \[2, 3\], got \[9, 9\]",
        ),
    ],
)
def test_a_run_that_cannot_begin_says_why(tmp_path: Path, case: Case, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        loopback(hier_moe, case, tmp_path)


def test_experts_of_unequal_widths_cannot_start_from_their_parents() -> None:
    with pytest.raises(ValueError, match="needs experts of one width, got"):
        Config(init="parent", widths=experts.Widths("width", root=4, inner=4, bottom=2))


def test_an_expert_slows_down_by_its_own_rounds_whoever_else_is_trained(tmp_path: Path) -> None:
    """Over two rounds of its own lr is .5, then .25: the root goes to 2.5, then on by half as much as it would."""
    case = replace(BY_HAND, config=Config(anneal_over=2))
    fleet = loopback(hier_moe, case, tmp_path).rounds(3)
    assert values(fleet) == {"all": 2.5, "A": 1, "B": 3}
    assert values(fleet.rounds(2)) == {"all": 2.5 + 0.25 * (5 - 2.5), "A": 1.25, "B": 3}


def test_few_samples_are_trained_in_as_many_steps_as_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four steps are of 15 where there are 60 samples; where there are 200, of 50, and the optimiser's batch is 40."""
    asked = recorded.of_sites(monkeypatch)
    case = replace(
        BY_HAND,
        config=Config(least_steps=4),
        training=Training(batch=40),
        data=lambda: {"a": constant(2.0, 0, 60), "b": constant(6.0, 2, 200)},
    )
    loopback(hier_moe, case, tmp_path).rounds(1)
    assert [fit.training.batch for fit in asked.fits] == [15, 40]


def test_few_samples_are_trained_in_small_batches() -> None:
    assert [experts.batch_of(n, 50, 5) for n in (1000, 250, 100, 50, 20, 3)] == [50, 50, 20, 10, 8, 8]
    assert experts.batch_of(20, 4, 5) == 4
