"""FedOBP by hand, its two download forms, and what it does when a stored upload cannot be used.

By hand, with two parameters: `trunk.weight` t and `classifier.weight` v, both start at 0, lr 0.5, one step of the
closed form. Agents a (1 sample of 2) and b (3 samples of 6). Round 1 is FedAvg: a ends at (1, 1), b at (3, 3), the
common model g is (2.5, 2.5). Scores of a: |(1 - 2.5) 1| = 1.5 for both entries: a tie, so at q = 0 nothing is above
the smallest and the start is g. With b's model moved to (3, 5) the scores are |(3 - 2.5) 3| = 1.5 and |(5 - 2.5) 5| =
12.5: at q = 0 and q = 0.5 the rank is floor(q * 1) = 0, so only v is personal, and b starts from (2.5, 5).
"""

import contextlib
import logging
import re
import tracemalloc
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import earlier, entries, saliency
from common.blobs import Blobs
from common.earlier import Earlier
from common.errors import ConfigError
from common.method import Encodings
from common.methods import fedavg, fedobp
from common.payloads import Mask, Sparse, Weights
from common.store import AgentStore
from common.wire import records
from tests.methods import test_fedavg
from tests.methods.contract import Case, Folders, loopback
from tests.methods.loopback import Faults, Loopback
from tests.methods.tiny import TinyModel

CASES = (
    Case("values", fedobp.Config(q=0.5, form="values")),
    Case("bits with a running score", fedobp.Config(q=0.5, form="bits", ema=0.5), keeps_memory=True),
    Case("smaller form by layer", fedobp.Config(q=0.7, norm="layer", score="change"), keeps_memory=True),
    Case("on the agent", fedobp.Config(q=0.5, score_on="agent", ema=0.5), keeps_memory=True),
    Case("fisher", fedobp.Config(q=0.5, score_on="agent", score="fisher"), keeps_memory=True),
    Case("gradient", fedobp.Config(q=0.5, score_on="agent", score="gradient", bn="local"), keeps_memory=True),
    Case("first contact", fedobp.Config(q=0.5, first_contact="initial"), keeps_memory=True),
    Case("left out of the mean", fedobp.Config(q=0.5, aggregate="shared", bn="local"), keeps_memory=True),
    Case("scores above their mean", fedobp.Config(times=2, ema=0.5), keeps_memory=True),
    Case("a budget of bytes", fedobp.Config(budget_bytes=40, form="values")),
    Case("head of the agent", fedobp.Config(q=0.5, only=("trunk",)), head="agent", keeps_memory=True),
)
PLAIN = Case("plain", fedobp.Config(q=0.5, form="values"), keeps_memory=True)


def own_of(fleet: Loopback, name: str) -> Mask | Sparse | None:
    own: Mask | Sparse | None = planned(fleet, name).own
    return own


def planned(fleet: Loopback, *names: str) -> Any:
    infos = tuple(fleet.info(name) for name in names)
    return next(task for _, task in fleet.plan(infos, 9, "train"))


def starts(fleet: Loopback) -> dict[str, Weights]:
    """Where each agent would start now: what the server plans, decoded, put together on the agent."""
    found = {}
    for name in fleet.data:
        task = fleet.through(planned(fleet, name), fedobp.Task, fleet.run.encodings.down)
        site = fleet.site(name, 9, "start")
        found[name] = fedobp._start(task, fleet.memory(name), site)[0]
    return found


def same(a: Weights, b: Weights) -> bool:
    return list(a) == list(b) and all(a[name].tobytes() == b[name].tobytes() for name in a)


# ------------------------------------------------------------------ by hand


def test_by_hand(tmp_path: Path) -> None:
    fleet = loopback(fedobp, replace(test_fedavg.BY_HAND, config=fedobp.Config(q=0.5)), tmp_path).rounds(1)
    g = fleet.state.common.weights
    assert g["trunk.weight"] == g["classifier.weight"] == [2.5]
    assert own_of(fleet, "a") is None  # a tie at the threshold: nothing is above it
    moved = Weights({"trunk.weight": np.array([3], np.float32), "classifier.weight": np.array([5], np.float32)})
    store = fleet.state.earlier.kept("b", Earlier(moved, -1, None))
    fleet.state = fleet.stored(replace(fleet.state, earlier=store), fedobp.State)
    own = own_of(fleet, "b")
    assert isinstance(own, Sparse)
    assert list(own.tensors) == ["classifier.weight"]
    assert own.tensors["classifier.weight"].values == [5.0]
    start = entries.put_back(g, own, None)
    assert (start["trunk.weight"], start["classifier.weight"]) == ([2.5], [5.0])


def test_a_round_by_hand(tmp_path: Path) -> None:
    """From (2.5, 5) b, of value 6, ends at (4.25, 5.5); a from (2.5, 2.5) at (2.25, 2.25); mean (3.75, 4.6875)."""
    fleet = loopback(fedobp, replace(test_fedavg.BY_HAND, config=fedobp.Config(q=0.5)), tmp_path).rounds(1)
    moved = Weights({"trunk.weight": np.array([3], np.float32), "classifier.weight": np.array([5], np.float32)})
    fleet.state = replace(fleet.state, earlier=fleet.state.earlier.kept("b", Earlier(moved, -1, None)))
    g = fleet.rounds(1).state.common.weights
    assert g["trunk.weight"] == [3.75]
    assert g["classifier.weight"] == [4.6875]
    assert fleet.counts["b"]["personal"] == 1
    assert fleet.counts["b"]["personal classifier.weight"] == 1
    assert fleet.counts["b"]["personal as values (bytes)"] == 8
    assert fleet.counts["a"] == {"personal": 0}


def test_personal_entries_left_out_of_the_mean_by_hand(tmp_path: Path) -> None:
    """As above, but b keeps v = 5.5 for itself: v's mean is a's alone, 2.25; t is (2.25 + 3 * 4.25) / 4 as before."""
    config = fedobp.Config(q=0.5, aggregate="shared")
    fleet = loopback(fedobp, replace(test_fedavg.BY_HAND, config=config), tmp_path).rounds(1)
    moved = Weights({"trunk.weight": np.array([3], np.float32), "classifier.weight": np.array([5], np.float32)})
    fleet.state = replace(fleet.state, earlier=fleet.state.earlier.kept("b", Earlier(moved, -1, None)))
    g = fleet.rounds(1).state.common.weights
    assert g["trunk.weight"] == [3.75]
    assert g["classifier.weight"] == [2.25]


def test_the_running_score_by_hand(tmp_path: Path) -> None:
    """b's upload (3, 3) against g = 2.5 scores 1.5; after round 2 that is the running score, weighed 0.25 next time.

    Round 2: a and b start from g = 2.5 and end at 2.25 and 4.25, g = 3.75. b's new score is |(4.25 - 3.75) 4.25| =
    2.125, its running score 0.75 * 2.125 + 0.25 * 1.5 = 1.96875.
    """
    config = fedobp.Config(q=0.5, ema=0.25)
    fleet = loopback(fedobp, replace(test_fedavg.BY_HAND, config=config), tmp_path).rounds(1)
    assert fleet.state.earlier.get("b").score is None
    fleet.rounds(1)
    assert fleet.state.earlier.get("b").score["trunk.weight"] == [1.5]
    _, chosen = fedobp.chosen_for(fleet.run, fleet.state, "b")  # type: ignore[misc]
    assert chosen.running["trunk.weight"] == [1.96875]


def test_memory_of_a_merge_does_not_grow_with_running_scores(tmp_path: Path) -> None:
    """Each participant has one as large as the model; they are computed one by one as the checkpoint is written."""
    size = 100_000
    like = Weights({"w": np.zeros(size, np.float32)})
    blobs = Blobs(tmp_path, durable=False)
    store: AgentStore[Earlier] = AgentStore()
    rule = saliency.Rule("obd", 0.5, 0.5, "none")
    for i in range(20):
        sent = Weights({"w": np.random.default_rng(i).random(size, np.float32)})
        kept = blobs.open(blobs.put(sent))
        scored = lambda agent, kept=kept: (None, saliency.choose(rule, kept, like, ["w"], None))  # noqa: E731
        store = store.made(str(i), partial(earlier.upload, kept, 0, scored, str(i)))
    tracemalloc.start()
    record = records.encode(Uploads(store), blobs.put)
    top = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(record.payloads) == 40
    assert top < 20 * 4 * size / 2  # all at once would be twice that


@dataclass(frozen=True)
class Uploads:
    of: AgentStore[Earlier]


def test_the_running_score_waits_for_an_accepted_reply(tmp_path: Path) -> None:
    case = replace(test_fedavg.BY_HAND, config=fedobp.Config(q=0.5, ema=0.25))
    fleet = loopback(fedobp, case, tmp_path).rounds(1)
    fleet.round(faults=Faults(lost=("b",)), evaluate=True)
    assert fleet.state.earlier.get("b").score is None
    assert fleet.state.earlier.get("b").step == 0


# ------------------------------------------------------------------ forms


@pytest.mark.parametrize("config", [{"q": 0.5}, {"q": 0.9, "score": "change"}, {"q": 0.0, "norm": "layer", "ema": 0.5}])
def test_both_forms_and_scoring_on_the_agent_give_the_same_bits(config: dict[str, Any], folders: Folders) -> None:
    ways = [{"form": "bits"}, {"form": "values"}, {"form": "smaller"}, {"score_on": "agent"}]
    fleets = [loopback(fedobp, Case("way", fedobp.Config(**config, **way)), folders()).rounds(3) for way in ways]
    for name, start in starts(fleets[0]).items():
        assert all(same(start, starts(fleet)[name]) for fleet in fleets[1:])
        assert not same(start, fleets[0].state.common.weights)
    common = [fleet.digest(fleet.state.common) for fleet in fleets]
    assert len(set(common)) == 1


@pytest.mark.parametrize("first_contact", ["empty", "initial"])
@pytest.mark.parametrize(("up", "down"), [("float16", "float16"), ("float32", "float16"), ("float16", "float32")])
def test_all_ways_agree_when_payloads_are_rounded(up: Any, down: Any, first_contact: Any, folders: Folders) -> None:
    config = fedobp.Config(q=0.5, first_contact=first_contact)
    half = Case("half", config, encodings=Encodings(up, down))
    ways = [{"form": "bits"}, {"form": "values"}] + [{"score_on": "agent"}] * (first_contact == "empty")
    fleets = [loopback(fedobp, replace(half, config=replace(half.config, **way)), folders()).rounds(3) for way in ways]
    for name, start in starts(fleets[0]).items():
        assert all(same(start, starts(fleet)[name]) for fleet in fleets[1:])
        assert not same(start, fleets[0].run.down(fleets[0].state.common.weights))


def test_the_form_of_the_values_is_used_when_the_device_holds_another_model(tmp_path: Path) -> None:
    fleet = loopback(fedobp, Case("bits", fedobp.Config(q=0.5, form="bits")), tmp_path).rounds(2)
    assert isinstance(own_of(fleet, "anna"), Mask)
    before = starts(fleet)["anna"]
    fleet.memories.pop("anna")
    assert isinstance(own_of(fleet, "anna"), Sparse)
    assert same(starts(fleet)["anna"], before)


def test_with_values_the_device_keeps_nothing(tmp_path: Path) -> None:
    fleet = loopback(fedobp, PLAIN, tmp_path).rounds(2)
    assert all(fleet.digest(fleet.memory(name)) == fleet.digest(fedobp.Memory()) for name in fleet.data)


def test_the_smaller_form_is_chosen() -> None:
    own = Weights({"w": np.arange(64, dtype=np.float32)})
    few, many = {"w": np.arange(64) < 1}, {"w": np.arange(64) < 2}
    assert isinstance(entries.in_form("smaller", own, few, "float32"), Sparse)  # 8 bytes against 8: values, no state
    assert isinstance(entries.in_form("smaller", own, many, "float32"), Mask)  # 16 bytes against 8
    assert isinstance(entries.in_form("smaller", own, few, "float16"), Sparse)


def test_nothing_personal_sends_nothing_personal(tmp_path: Path) -> None:
    fleet = loopback(fedobp, Case("all common", fedobp.Config(q=1.0)), tmp_path).rounds(2)
    assert own_of(fleet, "anna") is None


def test_the_common_model_is_one_payload_for_all(tmp_path: Path) -> None:
    fleet = loopback(fedobp, PLAIN, tmp_path).rounds(2)
    refs = [fleet.encoded(planned(fleet, name)).payloads for name in fleet.data]
    assert len({ref[0].sha256 for ref in refs}) == 1
    assert len({ref[1].sha256 for ref in refs}) == 3


# ------------------------------------------------------------------ first contact, layers, limits


def test_a_newcomer_starts_from_the_common_model(tmp_path: Path) -> None:
    fleet = loopback(fedobp, PLAIN, tmp_path)
    fleet.round(arrival=("anna", "bert"))
    assert own_of(fleet, "cleo") is None


def test_a_newcomer_is_reset_to_the_first_model_on_request(tmp_path: Path) -> None:
    fleet = loopback(fedobp, replace(PLAIN, config=fedobp.Config(q=0.5, first_contact="initial")), tmp_path)
    first = fleet.state.common.weights
    assert own_of(fleet, "cleo") is None  # all scores are zero
    fleet.round(arrival=("anna", "bert"))
    own = own_of(fleet, "cleo")
    assert isinstance(own, Sparse)
    for name, tensor in own.tensors.items():
        assert (tensor.values == first[name].ravel()[tensor.indices]).all()


def test_everything_personal_trains_alone_and_nothing_personal_is_fedavg(folders: Folders) -> None:
    none = loopback(fedobp, Case("q1", fedobp.Config(q=1.0)), folders()).rounds(3)
    average = loopback(fedavg, Case("avg", fedavg.Config()), folders()).rounds(3)
    assert none.digest(none.state.common) == average.digest(average.state)
    fleet = loopback(fedobp, Case("q0", fedobp.Config(q=0.0)), folders()).rounds(2)
    for name, start in starts(fleet).items():
        held = fleet.memory(name).weights
        kept = sum(int((start[n] == held[n]).sum()) for n in fleet.state.scored)
        assert kept >= sum(held[n].size for n in fleet.state.scored) - 1  # but the smallest


def test_only_these_layers_get_a_score(tmp_path: Path) -> None:
    fleet = loopback(fedobp, Case("cls", fedobp.Config(q=0.3, form="bits", only=("classifier",))), tmp_path).rounds(2)
    own = own_of(fleet, "anna")
    assert isinstance(own, Mask)
    assert set(own.bits) == {"classifier.weight", "classifier.bias"}


def test_buffers_and_counters_never_get_a_score(tmp_path: Path) -> None:
    fleet = loopback(fedobp, PLAIN, tmp_path)
    assert fleet.state.scored == ("trunk.weight", "norm.scale", "classifier.weight", "classifier.bias")


def test_a_layer_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no layer 'clasifier' that is shared; it has: trunk, norm, classifier"):
        loopback(fedobp, Case("typo", fedobp.Config(only=("clasifier",))), tmp_path)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"q": 7, "score_on": "agent"}, r"q must be in \[0, 1\] and ema in \[0, 1\), got q 7"),
        ({"q": 1.2}, r"q must be in \[0, 1\] and ema in \[0, 1\), got q 1.2"),
        ({"q": float("nan")}, "got q nan"),
        ({"ema": 1.0}, "ema 1.0"),
        ({"score": "fisher"}, "score = 'fisher' needs the agent's data"),
        ({"score_on": "agent", "aggregate": "shared"}, "need score_on = 'server'"),
        ({"score_on": "agent", "first_contact": "initial"}, "need score_on = 'server'"),
    ],
)
def test_settings_that_cannot_be(config: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        fedobp.Config(**config)


# ------------------------------------------------------------------ stored uploads that cannot be used


def changed(fleet: Loopback, name: str, weights: Weights) -> None:
    store = fleet.state.earlier.kept(name, Earlier(weights, 1, None))
    fleet.state = replace(fleet.state, earlier=store)


@pytest.mark.parametrize(
    ("tensor", "value", "text"),
    [
        (
            "trunk.weight",
            np.zeros((5, 5), np.float32),
            r"'trunk.weight' cannot be scored: expected \[2, 3\], got \[5, 5\]",
        ),
        ("norm.scale", np.full(2, np.nan, np.float32), "'norm.scale' cannot be scored: its scores are NaN"),
    ],
)
def test_an_upload_that_cannot_be_scored_is_said_and_the_run_goes_on(
    tensor: str, value: Any, text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = loopback(fedobp, PLAIN, tmp_path).rounds(2)
    changed(fleet, "bert", fleet.state.earlier.get("bert").weights.updated({tensor: value}))
    with caplog.at_level(logging.WARNING):
        assert own_of(fleet, "bert") is None
    assert "agent=bert starts_from=common" in caplog.text
    assert re.search(text, caplog.text)
    assert own_of(fleet, "anna") is not None
    fleet.rounds(1)
    assert own_of(fleet, "bert") is not None


def test_an_upload_that_is_gone_is_said_and_the_run_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fleet = loopback(fedobp, PLAIN, tmp_path).rounds(2)
    fleet.blobs.remove(fleet.encoded(fleet.replies["bert"]).payloads[0].sha256)
    with caplog.at_level(logging.WARNING):
        assert own_of(fleet, "bert") is None
    assert "agent=bert starts_from=common" in caplog.text
    assert "is not in" in caplog.text


# ------------------------------------------------------------------ server and agent agree, over random models

MODELS = st.integers(0, 2**32 - 1).map(np.random.default_rng)


@dataclass
class Device:
    """As much of a Site as choosing on the agent asks for."""

    model: TinyModel
    data = SimpleNamespace(train=range(3))

    def learner(self) -> TinyModel:
        return self.model

    def span(self, name: str, n_samples: int) -> Any:
        return contextlib.nullcontext()


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Blobs:
    return Blobs(tmp_path_factory.mktemp("blobs"), durable=False)


@settings(max_examples=60, deadline=None)
@given(
    rng=MODELS,
    q=st.sampled_from([0.0, 0.5, 0.9, 0.9999, 1.0]),
    form=st.sampled_from(["bits", "values", "smaller"]),
    score=st.sampled_from(["obd", "change"]),
    norm=st.sampled_from(["none", "layer"]),
    ema=st.sampled_from([0.0, 0.5]),
)
def test_server_and_agent_choose_the_same(
    blobs: Blobs, rng: np.random.Generator, q: float, form: Any, score: Any, norm: Any, ema: float
) -> None:
    model = TinyModel(width=int(rng.integers(1, 40)))
    own, base, before = model.initial(rng), model.initial(rng), model.initial(rng)
    if rng.random() < 0.5:  # many exact ties, as dead units make them
        own, base = (Weights({n: np.round(a).astype(a.dtype) for n, a in w.items()}) for w in (own, base))
    rule, names = saliency.Rule(score, q, ema, norm), saliency.scored_names(model.parameters(), ())
    by_agent = saliency.choose_on_agent(rule, own, base, (), Device(model), before)  # type: ignore[arg-type]

    uploaded = blobs.open(blobs.put(own))  # what the server has of it
    store = AgentStore({"anna": Earlier(uploaded, 3, before)})
    found = earlier.choose(rule, store, "anna", base, names, else_from=None)
    assert found is not None
    sent = earlier.sent(*found, form, 3, "float32")
    received = entries.bits_of(None if sent is None else blobs.open(blobs.put(sent)))
    for name, mask in by_agent.bits.items():
        assert (received.get(name, np.zeros_like(mask)) == mask).all()
    start = entries.put_back(base, sent, None if form == "values" else own)
    assert same(start, entries.restored(base, own, by_agent.bits))
    assert same(Weights(found[1].running), Weights(by_agent.running))
