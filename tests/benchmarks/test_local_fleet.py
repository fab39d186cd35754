"""fed-bench from end to end: a real server, real agents, and nothing left behind."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from benchmarks import experiment as run_once
from benchmarks import fleet, results
from benchmarks.__main__ import main
from common import pb
from common.errors import EXIT_CONFIG, EXIT_INTERRUPTED, EXIT_RUN, FederationError, LocalFault

EXPERIMENT = """
[run]
method = "fedavg"
rounds = 2
[model]
name = "linear"
input = "8x8x1"
[data]
name = "digits"
n_agents = 2
[agents]
min = 2
[evaluation]
every = 1
"""


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(EXPERIMENT)
    return path


def children() -> list[str]:
    return [" ".join(p.cmdline()) for p in psutil.Process().children(recursive=True)]


@pytest.mark.slow
def test_an_experiment_runs_is_kept_and_is_not_run_again(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, out = children(), experiment.parent / "out"
    command = ["run", str(experiment), "--out", str(out), "--json"]
    assert main(command) == 0
    assert children() == before
    (run,) = results.load(out / "results.json").runs
    assert (run.status, run.method, len(run.rounds)) == ("done", "fedavg", 2)
    assert [task.agent for task in run.rounds[0].agents] == ["agent-00", "agent-01"]
    sent = [task.bytes_up for row in run.rounds for task in row.agents if task.bytes_up is not None]  # told in time
    assert sent
    assert min(sent) > 65 * 10 * 4
    assert 0.3 < run.final["accuracy"] <= 1
    assert (out / "accuracy.png").exists()
    assert not (out / "logs" / "state").exists()
    assert json.loads(capsys.readouterr().out)["runs"][0]["state_sha256"] == run.state_sha256

    assert main(command) == 0  # fast, because nothing is started
    assert "1 run, 1 of them finished earlier" in capsys.readouterr().err
    assert main(["table", str(out)]) == 0
    assert "| fedavg |" in capsys.readouterr().out


STAGES = """
[[stage]]
name = "first"
[[stage]]
name = "second"
[stage.set]
"run.init_from" = "first"
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing ends a fleet whose fed-bench was killed")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_broken_off_in_mid_run_it_goes_on_with_the_next_round(experiment: Path, how: signal.Signals) -> None:
    experiment.write_text(EXPERIMENT.replace("rounds = 2", "rounds = 20") + STAGES)
    out = experiment.parent / "out"
    log = out / "logs" / "fed-server.log"
    command = [sys.executable, "-m", "benchmarks", "run", str(experiment), "--out", str(out)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as first:
        wait_until(lambda: log.exists() and "round_done run=fedavg-s1-second round=2" in log.read_text())
        fleets = psutil.Process(first.pid).children(recursive=True)
        first.send_signal(how)
        assert first.wait(60) == (EXIT_INTERRUPTED if how == signal.SIGTERM else -how)
    assert [run.stage for run in results.load(out / "results.json").runs] == ["first"]

    assert main(command[3:]) == 0  # at once: it waits for the processes that are still ending
    assert not psutil.wait_procs(fleets, 30)[1]
    runs = results.load(out / "results.json").runs
    assert [(run.stage, [r.round for r in run.rounds]) for run in runs] == [
        ("first", list(range(1, 21))),
        ("second", list(range(1, 21))),
    ]
    assert "round_done run=fedavg-s1-first" not in log.read_text()
    assert "round_done run=fedavg-s1-second round=1 " not in log.read_text()
    assert not (out / "logs" / "state").exists()
    calm = experiment.parent / "calm"
    assert main(["run", str(experiment), "--out", str(calm)]) == 0
    calm_runs = results.load(calm / "results.json").runs
    assert [run.state_sha256 for run in runs] == [run.state_sha256 for run in calm_runs]


@pytest.mark.slow
def test_a_run_that_failed_before_a_break_is_tried_again(experiment: Path) -> None:
    first = experiment.parent / "first.npz"
    np.savez(first, other=np.zeros(3, np.float32))
    rows = f'[[row]]\nlabel = "a"\n[row.set]\n"run.init" = "{first}"\n[[row]]\nlabel = "b"\n'
    experiment.write_text(EXPERIMENT + rows)
    out = experiment.parent / "out"
    command, execute = ["run", str(experiment), "--out", str(out)], run_once.execute

    def broken_off(plan: run_once.Planned, *given: Any) -> results.RunRow:
        if plan.label == "b":
            raise KeyboardInterrupt
        return execute(plan, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_once, "execute", broken_off)
        assert main(command) == EXIT_INTERRUPTED
    np.savez(first, **{"dense.weight": np.zeros(3, np.float32)})
    assert main(command) == EXIT_RUN
    (failed, _) = results.load(out / "results.json").runs
    assert "dense.weight" in failed.reason


def wait_until(there: Callable[[], bool]) -> None:
    end = time.monotonic() + 180
    while not there():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.slow
def test_a_run_that_fails_is_kept_with_its_reason_and_ends_with_a_code(experiment: Path) -> None:
    first = experiment.parent / "first.npz"
    np.savez(first, other=np.zeros(3, np.float32))
    experiment.write_text(EXPERIMENT.replace("rounds = 2", f'rounds = 2\ninit = "{first}"'))
    out = experiment.parent / "out"
    assert main(["run", str(experiment), "--out", str(out)]) == EXIT_RUN
    (run,) = results.load(out / "results.json").runs
    assert run.status == "failed"
    assert "other" in run.reason


def test_data_that_do_not_fit_the_model_are_noticed_before_anything_starts(
    experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment.write_text(EXPERIMENT.replace('"8x8x1"', '"9x9x1"'))
    assert main(["run", str(experiment), "--out", str(experiment.parent / "out")]) == 14
    assert "expected 9x9x1, got 8x8x1" in capsys.readouterr().err


@pytest.mark.slow
def test_an_agent_that_dies_is_an_error_with_its_last_lines(tmp_path: Path) -> None:
    flags = ("--data", str(tmp_path / "nowhere"))
    with fleet.server(tmp_path) as federation:
        assert federation.online() == []
        with (
            pytest.raises(LocalFault, match=r"agent-00 ended with code 14.*\n.*nowhere"),
            fleet.agents(federation, tmp_path, 1, n_processes=1, flags=flags),
        ):
            pytest.fail("an agent without data cannot join")
    assert federation.server.popen.poll() == 0


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(FederationError, match="did not start") as caught, fleet.server(tmp_path, listen="nonsense"):
        pytest.fail("no such address")
    assert caught.value.exit_code == 11


def test_state_lies_elsewhere_when_the_path_of_its_socket_would_be_too_long(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 60) / ("y" * 60)
    with fleet.server(deep) as federation:
        assert not federation.state.is_relative_to(tmp_path)
        assert not federation.operations.ListRuns(pb.ListRunsRequest()).runs
    assert not federation.state.exists()


def test_more_agents_than_processes_share_one_host() -> None:
    assert fleet.shares(4, 4) == [(), (), (), ()]
    assert fleet.shares(100, 2) == [("--agents", "100", "--workers", "2")]


def test_what_was_started_is_ended_even_when_it_does_not_listen(tmp_path: Path) -> None:
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    with pytest.MonkeyPatch.context() as patch, fleet.started("deaf", ["-c", deaf], tmp_path) as process:
        patch.setattr(fleet, "STOP_S", 0.1)
        while "up" not in process.log.read_text():
            process.check()
        process.stop()
        assert process.popen.returncode == -9


# ------------------------------------------------------------------ the command line


def test_help_shows_examples_and_exit_codes_and_loads_nothing_heavy() -> None:
    program = (
        "import sys; from benchmarks.__main__ import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print({'numpy', 'grpc', 'rich', 'torch', 'matplotlib'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "fed-bench quickstart" in ran.stdout
    assert "exit codes:" in ran.stdout
    assert ran.stdout.endswith("set()\n")


@pytest.mark.parametrize("command", ["quickstart", "run", "table", "plot", "partition", "overhead"])
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert command in capsys.readouterr().out


def test_without_the_bench_extra_the_way_to_get_it_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in list(sys.modules):
        if name.split(".")[0] == "rich" or name in ("benchmarks.commands", "benchmarks.table"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.setattr("benchmarks.commands", None, raising=False)
    assert main(["table", "nowhere"]) == EXIT_CONFIG
    assert "pip install 'edgefed[bench]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["run", "quickstrt"], 10, "did you mean 'quickstart'"),
        (["run", "quickstart", "--set", "run.roundz=3"], 10, "did you mean 'rounds'"),
        (
            ["run", "quickstart", "--agents", "external"],
            12,
            "give --tls-cert, --tls-key and --client-ca, or --insecure",
        ),
        (["table", "nowhere"], 14, "cannot read results nowhere/results.json"),
    ],
)
def test_what_a_person_gets_wrong_is_one_sentence_and_a_code(
    argv: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == code
    assert said in capsys.readouterr().err
