import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import results
from common.errors import EXIT_DATA, ConfigError
from tests.benchmarks.made import detail, evaluation, experiment, row


def test_accuracy_is_pooled_and_personal_accuracy_is_the_mean_over_agents() -> None:
    """Round 2: pooled (8 + 12) / 40 = 0.5; mean of 8/10 and 12/30 = 0.6. Means of rounds: (0.275 + 0.5) / 2."""
    final = row().final
    assert final["accuracy"] == pytest.approx(0.5)
    assert final["personal_accuracy"] == pytest.approx(0.6)
    assert final["accuracy_mean_last5"] == pytest.approx((11 / 40 + 20 / 40) / 2)


def test_last_round_counts_and_not_the_best() -> None:
    message = detail()
    message.evaluations[1].agents[1].evaluations[0].sums["accuracy"] = 0
    assert row(message).final["accuracy"] == pytest.approx(8 / 40)


def test_bytes_per_round_are_of_the_transfers_that_are_known() -> None:
    assert row().final["bytes_per_round"] == 1500
    known, missing = row().rounds[0].agents
    assert (known.bytes_up, known.bytes_down) == (1000, 500)
    assert (missing.bytes_up, missing.bytes_down) == (None, None)


def test_moments_inside_a_task_become_evaluations_of_their_round() -> None:
    message = detail()
    message.rounds[0].agents[0].evaluations.extend([evaluation("start", 10, 1), evaluation("trained", 10, 9)])
    found = {(e.round, e.when): e.metrics for e in row(message).evaluations}
    assert found[1, "start"]["accuracy_start"] == pytest.approx(0.1)
    assert found[1, "trained"]["accuracy_trained"] == pytest.approx(0.9)
    assert list(found) == [(1, "merged"), (1, "start"), (1, "trained"), (2, "merged")]


def test_each_label_space_and_split_is_an_evaluation_of_its_own() -> None:
    message = detail()
    own = evaluation("merged", 10, 10)
    own.label_space, own.split = "own", "holdout"
    message.evaluations[1].agents[0].evaluations.append(own)
    last = [e for e in row(message).evaluations if e.round == 2]
    assert {(e.label_space, e.split): e.metrics.get("accuracy") for e in last} == {
        ("all", "test"): pytest.approx(0.5),
        ("own", "holdout"): None,
    }
    assert last[1].metrics["accuracy_own_holdout"] == 1.0


def test_a_second_reading_stands_beside_the_common_model() -> None:
    message = detail()
    for answer in message.evaluations[1].agents:
        answer.evaluations.insert(0, evaluation("merged", answer.evaluations[0].n, 3, "personal"))
    last = row(message).evaluations[-1]
    first = last.agents[0]
    assert (first.reading, first.correct) == ("model", 8)
    assert first.metrics["personal_accuracy"] == pytest.approx(0.3)
    assert last.metrics["personal_accuracy"] == pytest.approx((3 / 10 + 3 / 30) / 2)
    assert last.metrics["personal_accuracy_weighted"] == pytest.approx(6 / 40)


def test_who_did_not_answer_is_named() -> None:
    assert row().evaluations[0].extra["missing"] == ["c"]


def test_what_is_saved_reads_back_equal(tmp_path: Path) -> None:
    saved = experiment(row())
    results.save(saved, tmp_path / "out" / "results.json")
    loaded = results.load(tmp_path / "out" / "results.json")
    assert results.as_json(loaded) == results.as_json(saved)
    assert loaded.runs[0].rounds == saved.runs[0].rounds


def test_json_has_the_documented_names(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    results.save(experiment(row()), path)
    table = json.loads(path.read_text())
    assert set(table) == {"experiment", "git", "versions", "host", "runs", "table"}
    run = table["runs"][0]
    assert {"label", "method", "seed", "config", "final", "rounds", "evaluations"} <= set(run)
    wanted = "agent task warmup shared n_samples train_s cpu_s rss_peak_delta_bytes data_bytes model_bytes"
    assert {*wanted.split(), "bytes_up", "bytes_down", "loss"} <= set(run["rounds"][0]["agents"][0])
    assert {"round", "when", "label_space", "split", "agents", "metrics", "extra"} <= set(run["evaluations"][0])
    assert {"agent", "task", "n", "correct", "loss", "metrics"} <= set(run["evaluations"][0]["agents"][0])


def test_numbers_that_are_not_finite_never_reach_the_file(tmp_path: Path) -> None:
    message = detail()
    message.rounds[0].agents[0].report.loss = float("nan")
    message.evaluations[0].agents[0].evaluations[0].sums["loss"] = float("inf")
    results.save(experiment(row(message)), tmp_path / "results.json")
    assert "NaN" not in (tmp_path / "results.json").read_text()
    assert results.load(tmp_path / "results.json").runs[0].rounds[0].agents[0].loss is None


def test_a_crash_while_saving_leaves_the_earlier_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "results.json"
    results.save(experiment(), path)

    def broken(src: Path, dst: Path) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("common.files.replace", broken)
    with pytest.raises(OSError, match="no space"):
        results.save(experiment(row()), path)
    assert results.load(path).runs == ()
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t["runs"][0].update(seed="one"), r"runs\[0\].seed must be a whole number, got the text 'one'"),
        (lambda t: t["runs"][0].pop("rounds"), r"runs\[0\].rounds is missing"),
        (lambda t: t.update(expriment=1), "has no key 'expriment'; did you mean 'experiment'"),
    ],
)
def test_a_file_of_another_form_is_refused_by_name(tmp_path: Path, change: object, said: str) -> None:
    path = tmp_path / "results.json"
    results.save(experiment(row()), path)
    table = json.loads(path.read_text())
    change(table)  # type: ignore[operator]  # a lambda of the table above
    path.write_text(json.dumps(table))
    with pytest.raises(ConfigError, match=said) as caught:
        results.load(path)
    assert caught.value.exit_code == EXIT_DATA


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_a_file_that_is_no_results_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"results\.json"):
        results.load(path)


def test_a_run_without_rounds_has_no_final_numbers() -> None:
    empty = replace(row(), rounds=(), evaluations=())
    assert results.final(empty.rounds, empty.evaluations) == {}
