from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import commands, estimate, experiment, results
from benchmarks.experiment import Planned
from benchmarks.pages import ssl as ssl_page
from benchmarks.results import Results
from common import methods, runfile
from common.errors import ConfigError, UnknownName
from common.run_sections import RunFile
from tests.benchmarks import made

BASE = """
[run]
method = "fedavg"
rounds = 4
seed = 7
[data]
n_agents = 3
"""
ROWS = """
[[row]]
label = "A"
seeds = [1, 2]
[[row]]
label = "B, mu 0.1"
set = {"run.method" = "fedprox", "method.mu" = 0.1}
"""
STAGES = """
[[stage]]
name = "warm"
set = {"run.rounds" = 1}
[[stage]]
name = "main"
"""


def file(text: str = BASE) -> RunFile:
    return runfile.parse(text, "test")


def finished(plan: Planned) -> results.RunRow:
    row = replace(made.row(), label=plan.label, seed=plan.seed, stage=plan.stage, config=plan.config)
    return replace(row, seconds=2.0)


def empty() -> Results:
    return Results("test", "", {}, {})


def test_rows_and_seeds_make_the_runs() -> None:
    chains = experiment.planned(file(BASE + ROWS))
    assert [(p.label, p.seed, p.name) for (p,) in chains] == [
        ("A", 1, "a-s1"),
        ("A", 2, "a-s2"),
        ("B, mu 0.1", 7, "b-mu-0-1-s7"),
    ]
    assert [p.file.run.seed for (p,) in chains] == [1, 2, 7]


def test_rows_whose_runs_would_have_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="rows '< 1' and '> 1' are both '1-s7' on the server"):
        experiment.planned(file(BASE + '[[row]]\nlabel = "< 1"\n[[row]]\nlabel = "> 1"\n'))


@pytest.mark.parametrize("name", ["ssl_flowers_intel", "ssl_flowers_intel_full"])
def test_both_files_of_self_supervision_can_be_planned(name: str) -> None:
    chains = experiment.planned(runfile.parse(experiment.find(name)[1], name))
    labels = {plan.label: {p.stage for p in chain} for chain in chains for plan in chain}
    arms = [arm for _, _, arm in ssl_page.ARMS] + [arm for _, arm in ssl_page.VARIANTS]
    missing = [arm for arm in arms if arm.stage not in labels.get(arm.label, ())]
    if name == "ssl_flowers_intel":  # its net has no such weights
        assert [arm.label for arm in missing] == ["ImageNet weights"]


def test_seeds_of_the_command_go_before_those_of_the_file() -> None:
    chains = experiment.planned(file(BASE + ROWS), (5,))
    assert [(p.label, p.seed) for (p,) in chains] == [("A", 5), ("B, mu 0.1", 5)]


def test_a_stage_starts_from_the_run_of_the_one_before() -> None:
    ((first, second),) = experiment.planned(file(BASE + STAGES))
    assert (first.name, first.file.run.rounds) == ("fedavg-s7-warm", 1)
    assert second.file.run.init_from == "fedavg-s7-warm"
    assert second.file.run.rounds == 4


def test_a_mark_keeps_the_runs_of_two_servers_apart_and_what_is_finished_stays_so() -> None:
    """What is finished is known by label, seed, stage and settings, not by the names on a server."""
    (chain,) = experiment.planned(file(BASE + STAGES), mark="beef")
    assert [p.name for p in chain] == ["fedavg-s7-warm-beef", "fedavg-s7-main-beef"]
    assert chain[1].file.run.init_from == "fedavg-s7-warm-beef"
    found = empty()
    for plan in experiment.planned(file(BASE + STAGES), mark="cafe")[0]:
        found = experiment.kept(found, finished(plan), [], {})
    assert experiment.unfinished([chain], found.runs) == []


def test_what_is_finished_is_not_run_again() -> None:
    chains = experiment.planned(file(BASE + ROWS))
    found = experiment.kept(empty(), finished(chains[0][0]), ["A"], {})
    assert [p.title for (p,) in experiment.unfinished(chains, found.runs)] == ["A seed 2", "B, mu 0.1 seed 7"]


def test_another_setting_is_another_run() -> None:
    found = experiment.kept(empty(), finished(experiment.planned(file())[0][0]), [], {})
    changed = experiment.planned(runfile.with_overrides(file(), {"run.rounds": 5}))
    assert experiment.unfinished(experiment.planned(file()), found.runs) == []
    assert experiment.unfinished(changed, found.runs) == changed
    assert experiment.with_other_settings(changed, found.runs) == 1
    assert experiment.with_other_settings(experiment.planned(file()), found.runs) == 0
    assert experiment.with_other_settings(changed, experiment.kept(empty(), finished(changed[0][0]), [], {}).runs) == 0


def test_a_failed_run_is_run_again() -> None:
    chains = experiment.planned(file())
    failed = replace(finished(chains[0][0]), status="failed")
    assert experiment.unfinished(chains, experiment.kept(empty(), failed, [], {}).runs) == chains


def test_stages_are_run_again_together() -> None:
    """A later stage starts from a result that only a live server has."""
    chains = experiment.planned(file(BASE + STAGES))
    found = experiment.kept(empty(), finished(chains[0][0]), [], {})
    assert experiment.unfinished(chains, found.runs) == chains


def test_a_saved_experiment_goes_on(tmp_path: Path) -> None:
    """What a file gives back is equal to what was planned, so that a new process skips it."""
    chains = experiment.planned(file(BASE + ROWS))
    path = tmp_path / "results.json"
    results.save(experiment.kept(empty(), finished(chains[2][0]), [], {}), path)
    left = experiment.unfinished(chains, experiment.start("test", path).runs)
    assert [p.label for (p,) in left] == ["A", "A"]


def test_rows_stand_in_the_order_of_the_file_and_a_repeated_run_takes_its_place() -> None:
    first, second, third = (finished(p) for (p,) in experiment.planned(file(BASE + ROWS)))
    found = empty()
    for row in (third, second, first, replace(second, seconds=9.0)):
        found = experiment.kept(found, row, ["A", "B, mu 0.1"], {"CNN": "needs edgefed[torch]"})
    assert [(r.label, r.seed, r.seconds) for r in found.runs] == [("A", 1, 2.0), ("A", 2, 9.0), ("B, mu 0.1", 7, 2.0)]
    assert [row["label"] for row in found.table] == ["A", "B, mu 0.1", "CNN"]


@pytest.mark.parametrize("name", ["quickstart", "fashion_mnist_fedavg"])
def test_shipped_experiments_can_be_read_and_sent(name: str) -> None:
    stem, text = experiment.find(name)
    for chain in experiment.planned(runfile.parse(text, stem)):
        for plan in chain:
            assert experiment.n_agents(plan.file) > 1
            assert runfile.parse(runfile.to_toml(plan.file), plan.name) == plan.file


def test_every_shipped_experiment_is_found_by_name() -> None:
    shipped = Path(experiment.__file__).parent / "experiments"
    for path in shipped.glob("*.toml"):
        assert experiment.find(path.stem) == (path.stem, path.read_text())


def test_an_unknown_experiment_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="unknown experiment 'quickstrt'; did you mean 'quickstart'"):
        experiment.find("quickstrt")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read experiment .*none\.toml"):
        experiment.find(str(tmp_path / "none.toml"))


def test_agents_must_be_counted() -> None:
    with pytest.raises(ConfigError, match=r"no \[data\] n_agents"):
        experiment.n_agents(file('[run]\nmethod = "fedavg"\nrounds = 1\n'))


# ------------------------------------------------------------------ what is said before it starts


def test_estimate_is_of_finished_runs_of_the_same_row() -> None:
    chains = experiment.planned(file(), (1, 2, 3))
    found = experiment.kept(empty(), finished(chains[0][0]), [], {})
    assert estimate.seconds(chains[1:], found, 2) == pytest.approx(estimate.START_S + 2 * 2.0)


def test_estimate_grows_with_rounds_and_is_measured_when_nothing_ran() -> None:
    short, long = (experiment.planned(runfile.with_overrides(file(), {"run.rounds": n})) for n in (1, 1000))
    assert 0 < estimate.seconds(short, empty(), 2) < estimate.seconds(long, empty(), 2)


def test_kept_features_are_estimated_by_one_pass_and_not_by_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    """1 ms a sample: computed anew, 20 rounds of 50 epochs over some 1,000 digits take 20 s and more on 50 cores."""
    monkeypatch.setattr(estimate, "_sample_seconds", lambda file, pool: 1e-3)
    heads = {"run.method": "task_heads", "method.tune": "head", "run.rounds": 20, "optimiser.epochs": 50}
    kept, computed = (
        estimate.seconds(
            experiment.planned(runfile.with_overrides(file(), {**heads, "method.features": features})), empty(), 50
        )
        for features in ("cached", "computed")
    )
    assert kept < estimate.START_S + 4
    assert computed > estimate.START_S + 20


@pytest.mark.parametrize(
    ("s", "text"), [(0.2, "about 1 s"), (45, "about 45 s"), (600, "about 10 min"), (9000, "about 2.5 h")]
)
def test_estimate_reads_as_a_person_says_it(s: float, text: str) -> None:
    assert estimate.text(s) == text


# ------------------------------------------------------------------ --set, --all


def test_values_of_set_are_toml_and_else_text() -> None:
    assert commands.changes(["run.rounds=5", "data.alpha=0.5", "run.method=local", 'agents.tags=["a"]']) == {
        "run.rounds": 5,
        "data.alpha": 0.5,
        "run.method": "local",
        "agents.tags": ["a"],
    }


@pytest.mark.parametrize("pair", ["run.rounds", "=5"])
def test_set_without_a_value_is_refused(pair: str) -> None:
    with pytest.raises(ConfigError, match="--set takes KEY=VALUE"):
        commands.changes([pair])


def test_all_adds_a_row_for_every_method_that_has_none() -> None:
    whole = commands.with_all_methods(file(BASE + ROWS))
    assert {row.set.get("run.method", "fedavg") for row in whole.row} >= {"fedavg", "fedprox", "local"}
    assert [row.label for row in whole.row[:2]] == ["A", "B, mu 0.1"]
    assert {row.label for row in whole.row[2:]} <= set(methods.names())


def test_more_agents_than_there_are_would_be_waited_for_for_ever() -> None:
    with pytest.raises(ConfigError, match=r"\[agents\] min = 9 is more than \[data\] n_agents = "):
        experiment.n_agents(runfile.with_overrides(file(), {"agents.min": 9, "data.n_agents": 4}))


def test_where_no_row_can_run_it_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(commands, "need", lambda chain: "needs edgefed[torch]")
    output = commands.Output(tmp_path, as_json=False)
    with pytest.raises(ConfigError, match=r"no row of mine can run here: needs edgefed\[torch\]"):
        commands._experiment("mine", file(), output, commands.Which(), commands.Devices())


def test_a_row_that_needs_torch_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    chains = experiment.planned(file(BASE + '[model]\nname = "gn_cnn"\n'))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert commands.need(chains[0]) == "needs edgefed[torch]"
    assert commands.need(experiment.planned(file())[0]) == ""


def test_the_server_gets_the_files_that_it_needs_from_among_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEFED_DATA", str(tmp_path))
    for name in ("first.npz", "lists.json"):
        (tmp_path / name).write_bytes(name.encode())
    text = '[run]\nmethod = "fedavg"\nrounds = 1\ninit = "first.npz"\n[agents]\nselection = "lists.json"\n'
    file = runfile.parse(text + '[data]\npartition = "only-agents-have-it.npz"\n', "run.toml")
    assert experiment._files(file) == {"first.npz": b"first.npz", "lists.json": b"lists.json"}
    missing = runfile.with_overrides(file, {"run.init": "none.npz"})
    with pytest.raises(ConfigError, match=r"names a file that cannot be read: .*none\.npz"):
        experiment._files(missing)
