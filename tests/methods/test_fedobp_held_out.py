"""FedOBP with a q found on held-out data: what the levels are, and that the server takes the best candidate."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common import entries, quantile_rule, saliency
from common.errors import RemoteFault
from common.method import AgentInfo
from common.methods import fedavg, fedobp, fedobp_held_out
from common.methods.fedobp_held_out import Answer, Config, Reply
from common.payloads import Weights
from common.quantile_rule import Trials
from tests.methods.contract import Case, Folders, loopback
from tests.methods.loopback import Loopback

CANDIDATES = (0.0, 0.5, 0.9, 1.0)
PLAIN = Case("plain", Config(candidates=CANDIDATES, form="values"))
CASES = (
    PLAIN,
    Case("bits", Config(candidates=(0.3, 0.6), form="bits", ema=0.5, norm="layer"), keeps_memory=True),
    Case("shared", Config(candidates=(0.3, 0.6), aggregate="shared", bn="local"), keeps_memory=True),
)


def own_of(fleet: Loopback, name: str) -> Any:
    return next(task for _, task in fleet.plan((fleet.info(name),), 9, "train"))


def test_levels_put_together_are_the_starts_of_all_candidates(tmp_path: Path) -> None:
    fleet = loopback(fedobp_held_out, PLAIN, tmp_path).rounds(2)
    base = fleet.state.obp.common.weights
    upload = fleet.state.obp.earlier.get("bert")
    starts = list(quantile_rule.starts(base, own_of(fleet, "bert").levels))
    for start, q in zip(starts, reversed(CANDIDATES), strict=True):
        rule = saliency.Rule("obd", q, 0.0, "none")
        chosen = saliency.choose(rule, upload.weights, base, fleet.state.obp.scored, None)
        whole = entries.restored(base, upload.weights, chosen.bits)
        assert all(start[name].tobytes() == whole[name].tobytes() for name in whole)


def test_every_agent_with_an_earlier_model_answers(tmp_path: Path) -> None:
    fleet = loopback(fedobp_held_out, PLAIN, tmp_path).rounds(1)
    assert fleet.state.trials == Trials((0.0,) * 4, 0.0)  # nobody had one
    fleet.rounds(1)
    assert fleet.state.trials.n == len(fleet.data)  # each holds one sample out
    assert all(0 <= one <= 3 for one in fleet.state.trials.correct)
    assert fleet.counts["bert"]["trial (bytes)"] == 8 * (sum(len_of(fleet, "bert")) - 1)


@pytest.mark.parametrize("aggregate", ["all", "shared"])
def test_the_best_candidate_is_what_agents_start_from(aggregate: Any, tmp_path: Path) -> None:
    case = Case("best", replace(PLAIN.config, aggregate=aggregate))
    fleet = loopback(fedobp_held_out, case, tmp_path).rounds(2)
    fleet.state = replace(fleet.state, trials=Trials((0.0, 9.0, 0.0, 0.0), 9.0))  # the second of CANDIDATES is .5
    plain = replace(fleet.run, config=fedobp.Config(q=0.5, form="values", aggregate=aggregate))
    found = fedobp.chosen_for(plain, fleet.state.obp, "bert")
    assert found is not None
    expected = entries.in_form("values", found[0].weights, found[1].bits, "float32")
    for plan in (fleet.plan, evaluation_of(fleet)):
        own = next(task for _, task in plan((fleet.info("bert"),), 9, "train")).obp.own
        assert fleet.digest(own) == fleet.digest(expected)
    step = fleet._new_step(9, "train", "merge")
    replies = [(fleet.info(name), reply) for name, reply in fleet.replies.items()]
    merged = fedobp_held_out.merge(fleet.run, fleet.state, iter(replies), step)
    alone = fedobp.merge(plain, fleet.state.obp, ((info, reply.obp) for info, reply in replies), step)
    assert fleet.digest(merged.obp) == fleet.digest(alone)


def evaluation_of(fleet: Loopback) -> Any:
    def plan(agents: tuple[AgentInfo, ...], number: int, phase: str) -> Any:
        step = fleet._new_step(number, phase, "plan")
        return fedobp_held_out.plan_evaluation(fleet.run, fleet.state, agents, step)

    return plan


def test_an_upload_is_scored_once_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = loopback(fedobp_held_out, PLAIN, tmp_path).rounds(2)
    scored: list[str] = []
    chosen_for = fedobp.chosen_for
    monkeypatch.setattr(
        fedobp, "chosen_for", lambda run, state, name: [scored.append(name), chosen_for(run, state, name)][1]
    )
    own_of(fleet, "bert")
    assert scored == ["bert"]


def test_trials_without_held_out_samples_are_counted_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fleet = loopback(fedobp_held_out, PLAIN, tmp_path)
    fleet.data = {name: replace(data, holdout=data.train.take(np.arange(0))) for name, data in fleet.data.items()}
    fleet.rounds(2)
    assert fleet.state.trials == Trials((0.0,) * 4, 0.0)
    assert fleet.counts["bert"]["trial (bytes)"] > 0
    assert "[data] holdout is their share" in caplog.text


def len_of(fleet: Loopback, name: str) -> Iterator[int]:
    upload = fleet.state.obp.earlier.get(name)
    return (upload.weights[tensor].size for tensor in fleet.state.obp.scored)


def test_the_best_candidate_is_used_and_of_equals_the_cheapest() -> None:
    assert quantile_rule.best(Trials((3.0, 5.0, 5.0), 9.0), (0.1, 0.5, 0.9), 0.7) == 0.9
    assert quantile_rule.best(Trials((6.0, 5.0, 5.0), 9.0), (0.1, 0.5, 0.9), 0.7) == 0.1
    assert quantile_rule.best(Trials(), (0.1, 0.5, 0.9), 0.7) == 0.7


def test_old_answers_fade_by_hand() -> None:
    """Half of (4, 2) of 8 is (2, 1) of 4, with (1, 3) of 3 that is (3, 4) of 7."""
    found = quantile_rule.after(Trials((4.0, 2.0), 8.0), [Answer((1, 3), 3), Answer()], (0.1, 0.9), 0.5)
    assert found == Trials((3.0, 4.0), 7.0)


def test_with_one_candidate_it_is_fedobp(folders: Folders) -> None:
    trial = loopback(fedobp_held_out, Case("one", Config(q=0.5, candidates=(0.5,))), folders()).rounds(3)
    plain = loopback(fedobp, Case("plain", fedobp.Config(q=0.5)), folders()).rounds(3)
    assert trial.digest(trial.state.obp) == plain.digest(plain.state)


@pytest.mark.parametrize(
    "answer", [Answer((1,), 1), Answer((1, 1, 2, 1), 1), Answer((-1, 0, 0, 0), 1), Answer((0,), 0)]
)
def test_an_impossible_answer_is_the_agents_fault(answer: Answer, tmp_path: Path) -> None:
    fleet = loopback(fedobp_held_out, PLAIN, tmp_path).rounds(2)
    reply = Reply(fedavg.Reply(fleet.replies["bert"].obp.weights, 5), answer)
    infos: list[tuple[AgentInfo, Any]] = [(fleet.info("bert"), reply)]
    with pytest.raises(RemoteFault, match="agent bert: its counts of held-out samples are none"):
        fedobp_held_out.merge(fleet.run, fleet.state, iter(infos), fleet._new_step(3, "train", "merge"))


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"candidates": ()}, "candidates must be ascending"),
        ({"candidates": (0.9, 0.5)}, r"got \[0.9, 0.5\]"),
        ({"candidates": (0.5, 1.5)}, "candidates must be ascending"),
        ({"candidates": (-1e-10, 0.5)}, "candidates must be ascending"),
        ({"remember": 2.0}, "expected remember in"),
        ({"score_on": "agent"}, "score_on = 'server'"),
        ({"times": 3.0}, "neither times nor budget_bytes"),
    ],
)
def test_settings_that_cannot_be(config: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Config(**config)


# ------------------------------------------------------------------ the two rules that need no data


def test_a_budget_of_bytes_by_hand() -> None:
    """100 entries of 8 bytes: 40 bytes carry 5, 47 too; of 582,026 some 4,096 bytes carry 512."""
    for budget, k in ((0, 0), (7, 0), (40, 5), (47, 5), (48, 6), (10**9, 99)):
        q = quantile_rule.of_bytes(100, budget, "float32")
        assert 100 - 1 - int(np.floor(q * 99)) == k
    values = {"w": np.random.default_rng(1).permutation(582_026).astype(np.float32)}
    bits = saliency.above_quantile(values, quantile_rule.of_bytes(582_026, 4096, "float32"))
    assert entries.values_bytes(bits, "float32") == 4096
    assert quantile_rule.of_bytes(1, 100, "float32") == 1.0


def test_a_multiple_of_the_mean_by_hand() -> None:
    """Scores 1, 1, 1, 9: mean 3, so above twice the mean is 9 alone; nothing is above four times it."""
    values = {"a": np.array([1, 9], np.float32), "b": np.array([1, 1], np.float32)}
    assert [mask.tolist() for mask in saliency.above_mean(values, 2).values()] == [[False, True], [False, False]]
    assert not any(mask.any() for mask in saliency.above_mean(values, 4).values())
    assert saliency.above_mean({}, 2) == {}


def test_equal_models_have_no_personal_entry_by_any_rule() -> None:
    model = Weights({"w": np.ones(5, np.float32)})
    rule = saliency.Rule("obd", 0.0, 0.0, "none", times=2)
    assert not saliency.choose(rule, model, model, ["w"], None).bits["w"].any()
