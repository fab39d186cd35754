from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import condensed, results
from benchmarks import experiment as experiments
from benchmarks.condensed import Round
from benchmarks.results import AgentRow, EvaluatedAgent, EvaluationRow, RoundRow
from common import runfile
from common.errors import ConfigError
from tests.benchmarks.made import experiment, row


def evaluation(round_number: int, **correct: int) -> EvaluationRow:
    agents = tuple(EvaluatedAgent(name, "digits", 10, "personal", n) for name, n in correct.items())
    return EvaluationRow(round_number, "merged", "all", "test", agents, {})


def test_what_is_kept_is_read_back_equal(tmp_path: Path) -> None:
    found = condensed.of(experiment(row(), replace(row(), seed=2)))
    condensed.save(found, tmp_path / "new" / "small.json")
    assert condensed.load(tmp_path / "new" / "small.json") == found


def test_rounds_of_different_form_are_read_back_equal(tmp_path: Path) -> None:
    (run,) = condensed.of(experiment(row())).runs
    rounds = (Round(1, 0.5, {"train_loss": 0.25}), Round(2, 0.5, {}, 1.5, {"personal": 3.0}, {"train": 0.125}))
    found = replace(condensed.of(experiment(row())), runs=(replace(run, rounds=rounds, measured=()),))
    condensed.save(found, tmp_path / "x.json")
    assert condensed.load(tmp_path / "x.json") == found


def test_a_damaged_table_is_refused_with_the_file_s_name(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    condensed.save(condensed.of(experiment(row())), path)
    path.write_text(path.read_text().replace('"round": [', '"round": [0,'))
    with pytest.raises(ConfigError, match=r"x.json: columns of one table differ in length"):
        condensed.load(path)


def test_a_file_grows_over_checkouts_by_the_runs_that_the_experiment_has_today(tmp_path: Path) -> None:
    """Seeds 1 and 2 were there, seed 1 was made again, 3 is new; seed 4 has settings of a file that has changed."""
    text = '[run]\nmethod = "fedavg"\nrounds = 2\n[data]\nn_agents = 3\n'
    chains = experiments.planned(runfile.parse(text, "x"), (1, 2, 3, 4))
    plans = [plan for chain in chains for plan in chain]
    finished = [replace(row(), label=p.label, seed=p.seed, config=p.config, seconds=1.0) for p in plans]
    old = replace(finished[3], config={"run": {"rounds": 9}})
    condensed.save(condensed.of(experiment(*finished[:2], old)), tmp_path / "before.json")
    again = condensed.of(experiment(finished[2], replace(finished[0], seconds=5.0)))
    found = condensed.joined(again, condensed.load(tmp_path / "before.json").runs, plans)
    assert [(run.seed, run.seconds) for run in found.runs] == [(1, 5.0), (2, 1.0), (3, 1.0)]
    condensed.save(found, tmp_path / "x.json")
    left = experiments.unfinished(chains, condensed.load(tmp_path / "x.json").runs)
    assert [plan.seed for (plan,) in left] == [4]


def test_of_an_unknown_experiment_all_earlier_runs_stay() -> None:
    earlier, new = condensed.of(experiment(replace(row(), seed=7))), condensed.of(experiment(row()))
    assert [run.seed for run in condensed.joined(new, earlier.runs).runs] == [7, 1]


def test_a_run_says_its_commit_and_what_failed_is_not_kept() -> None:
    (kept,) = condensed.of(experiment(row(), replace(row(), seed=2, status="failed"))).runs
    assert (kept.seed, kept.git) == (1, "abc")
    assert kept.costs["bytes_up"] == 1000.0


def test_rounds_are_means_over_agents() -> None:
    agents = (AgentRow("a", "d", "merged", counts={"personal": 4.0}), AgentRow("b", "d", "merged"))
    left_out = AgentRow("c", "d", "late", counts={"personal": 100.0})
    run = replace(row(), rounds=(RoundRow(1, 0.5, agents=(*agents, left_out)),), evaluations=())
    (kept,) = condensed.of(experiment(run)).runs
    assert kept.rounds[0].counts == {"personal": 2.0}


def test_accuracy_by_the_age_of_the_last_model_by_hand() -> None:
    """a trains in rounds 1 and 3: ages 1, 2, 1 with 0.9, 0.7, 0.8 (mean 0.8); b in round 2: ages 1, 2 with 0.5, 0.3."""
    rounds = [
        RoundRow(number, 0.1, agents=tuple(AgentRow(name, "digits", "merged") for name in names))
        for number, names in ((1, "a"), (2, "b"), (3, "a"))
    ]
    found = condensed.ages(rounds, [evaluation(1, a=9, b=1), evaluation(2, a=7, b=5), evaluation(3, a=8, b=3)])
    assert [(age.age, age.n) for age in found] == [(1, 3), (2, 2)]
    assert found[0].accuracy == pytest.approx((0.9 + 0.8 + 0.5) / 3, abs=1e-6)
    assert found[0].gain == pytest.approx((0.1 + 0.0 + 0.1) / 3, abs=1e-6)
    assert found[1].gain == pytest.approx((-0.1 - 0.1) / 2, abs=1e-6)


def test_another_file_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    results.save(experiment(row()), path)
    with pytest.raises(ConfigError, match=r"results.json.*has no key 'final'"):
        condensed.load(path)
    with pytest.raises(ConfigError, match="cannot read condensed"):
        condensed.load(tmp_path / "none.json")
