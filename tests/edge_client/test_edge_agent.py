"""The installed program, as its owner meets it."""

import contextlib
import errno
import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import certificates
import grpc
import numpy as np
import psutil
import pytest
from fake_device import work
from scripted_federation import Federation

from common import files, pb
from common.errors import EXIT_STATE, ConfigError
from common.methods import fedavg
from common.payloads import Weights
from common.wire import records
from edge_client import folder as state_folder

ROOT = Path(__file__).resolve().parents[2]
AUTHORITY = certificates.make("authority")


def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")}


def run(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge_client", *arguments]
    return subprocess.run(
        command, env=environment(tmp_path), cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )


@contextlib.contextmanager
def started(tmp_path: Path, server: Federation, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "edge_client", "--server", server.address, "--name", "h", *arguments]
    log = (tmp_path / "log").open("w")
    process = subprocess.Popen(command, env=environment(tmp_path), cwd=tmp_path, stderr=log, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        log.close()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.npz"
    rng = np.random.default_rng(0)
    np.savez(path, x=rng.integers(0, 256, (40, 8, 8, 1), dtype=np.uint8), y=np.arange(40) % 2)
    return path


def test_help_is_quick_and_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys, edge_client.__main__ as m\n"
        "try: m.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([n for n in sys.modules if n.split('.')[0] in ('numpy', 'grpc', 'cryptography', 'google', 'psutil')])"
    )
    best = 1e9
    for _ in range(3):
        begin = _children_cpu_s()
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment(tmp_path), capture_output=True, text=True, check=True
        )
        best = min(best, _children_cpu_s() - begin)
    assert done.stdout.rstrip().endswith("[]")
    assert "examples:" in done.stdout
    assert best < 0.15


def _children_cpu_s() -> float:
    """CPU, not wall time: a busy machine must not fail this."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 10, "give this agent its data with --data"),
        (("--data", "nowhere"), 14, "do not exist"),
        (("--data", "named", "--server", "localhost"), 10, "HOST:PORT"),
        (("--data", "named", "--server", "10.0.0.1:1"), 12, "--tls-ca"),
        (("--data", "named", "--name", "a/b"), 10, "--name takes"),
        (("--data", "named", "--tls-cert", "x"), 10, "--tls-cert goes with --tls-ca"),
        (("--data", "named", "--tls-ca", "x", "--tls-cert", "y"), 10, "go together"),
        (("--data", "named", "--tls-ca", "x"), 12, "cannot read x"),
        (("--data", "a=named", "--data", "a=named"), 10, "no name twice"),
        (("--data", "a=named", "--agents", "2"), 10, "--agents goes with one --data"),
        (("--data", "named", "--agents", "0"), 2, "expected a number from 1 on"),
        (("--data", "named", "--memory-budget", "lots"), 2, "expected a size such as 512MB"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_mistakes_of_the_owner_end_it_at_once(tmp_path: Path, arguments, code: int, said: str) -> None:
    done = run(tmp_path, *arguments)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_folder_in_use_is_an_error_with_its_own_code(tmp_path: Path) -> None:
    with state_folder.opened(tmp_path / "s"):
        done = run(tmp_path, "--data", "named", "--state-dir", str(tmp_path / "s"))
    assert done.returncode == 13
    assert (
        f"in use by another edge-agent; stop that one or give this one its own --state-dir: process {os.getpid()}"
        in (done.stderr)
    )


@pytest.mark.parametrize(
    ("number", "said"), [(errno.ENOSPC, "is on a full disk: free some space"), (errno.EROFS, "cannot be used")]
)
def test_folder_that_cannot_be_written_is_an_error_of_the_owner(
    tmp_path: Path, monkeypatch, number: int, said: str
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files, "fsync_file", full)
    with pytest.raises(ConfigError, match=said) as caught, state_folder.opened(tmp_path / "s"):
        pass
    assert caught.value.exit_code == EXIT_STATE
    monkeypatch.undo()
    with state_folder.opened(tmp_path / "s") as folder:  # nothing is left behind, and the lock is free
        assert folder.instance


def test_errors_of_the_work_itself_are_not_blamed_on_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ConnectionResetError), state_folder.opened(tmp_path / "s"):
        raise ConnectionResetError


def test_folder_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "format").write_text("2\n")
    done = run(tmp_path, "--data", "named", "--state-dir", str(tmp_path / "s"))
    assert done.returncode == 13
    assert "expected format 1, got 2" in done.stderr


def test_idle_agent_says_what_it_is_and_stays_small(tmp_path: Path, server: Federation, data: Path) -> None:
    flags = ("--tags", "wifi,garden", "--memory-budget", "512MB", "--time-budget", "60")
    with started(tmp_path, server, "--data", str(data), *flags) as process:
        hello = server.expect("hello").hello
        server.offer(work(server, 0, agent="stranger"))
        server.expect("declined")  # so it has settled down
        rss = psutil.Process(process.pid).memory_info().rss
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert rss <= 70e6
    assert (hello.host, hello.protocol, hello.memory_budget_bytes, hello.time_budget_s) == ("h", 1, 512_000_000, 60.0)
    assert hello.instance
    assert {"fedavg", "fedprox", "local"} <= set(hello.methods)
    assert "numpy" in hello.learners
    assert "float16" in hello.encodings
    (agent,) = hello.agents
    assert (agent.name, list(agent.tags)) == ("h", ["wifi", "garden"])
    assert agent.data.n_classes == 2
    assert agent.data.n_train > 0
    assert not agent.data.has_counts  # nobody asked to share them
    assert server.expect("leaving").leaving.reason == "SIGTERM"


def test_counts_are_told_only_when_their_owner_shares_them(tmp_path: Path, server: Federation, data: Path) -> None:
    with started(tmp_path, server, "--data", str(data), "--share", "counts"):
        (agent,) = server.expect("hello").hello.agents
    assert agent.data.has_counts
    assert sum(agent.data.counts) == agent.data.n_train


def test_fleet_of_one_machine(tmp_path: Path, server: Federation) -> None:
    with started(tmp_path, server, "--data", "named", "--agents", "3", "--workers", "2"):
        hello = server.expect("hello").hello
    assert [agent.name for agent in hello.agents] == ["h/00", "h/01", "h/02"]
    assert all(agent.named_data for agent in hello.agents)
    assert hello.workers == 2


def test_two_data_sets_are_two_agents(tmp_path: Path, server: Federation, data: Path) -> None:
    with started(tmp_path, server, "--data", f"flowers={data}", "--data", "scenes=named"):
        hello = server.expect("hello").hello
    assert [(agent.name, agent.named_data) for agent in hello.agents] == [("h/flowers", False), ("h/scenes", True)]


def test_log_lines_as_json(tmp_path: Path, server: Federation) -> None:
    with started(tmp_path, server, "--data", "named", "--json") as process:
        server.expect("hello")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert any(line["text"].startswith("ending") and line["level"] == "info" for line in lines)


def test_run_that_cannot_be_read_is_declined(tmp_path: Path, server: Federation, data: Path) -> None:
    run_ref = server.payload(b"no run file")
    with started(tmp_path, server, "--data", str(data)) as process:
        offer = work(server, 0)
        offer.run.CopyFrom(run_ref)
        server.offer(offer)
        assert "expected a blob of type" in server.expect("declined").declined.reason
        assert process.poll() is None


def test_kill_between_commit_and_submit_loses_nothing(tmp_path: Path, server: Federation, data: Path) -> None:
    """`kill -9` once the submit has begun: after a new start the reply comes, and nothing is trained."""
    began, ended = threading.Event(), threading.Event()

    def hold(context: grpc.ServicerContext) -> None:
        context.add_callback(ended.set)
        began.set()
        ended.wait(60)

    server.faults["submit"].append(hold)
    offer = work(server, 0, task=_task(server), round=1, phase="train")
    with started(tmp_path, server, "--data", str(data)) as process:
        server.offer(offer)
        assert began.wait(60)
        process.kill()
    with started(tmp_path, server, "--data", str(data)):
        assert server.reply().key == offer.key
        server.expect("transfer")
    assert "submit_again" in (tmp_path / "log").read_text()


def test_sigterm_in_the_middle_of_training(tmp_path: Path, server: Federation, data: Path) -> None:
    with started(tmp_path, server, "--data", str(data)) as process:
        offer = work(server, 0, task=_task(server), round=1, phase="train", more="[optimiser]\nepochs = 100000000\n")
        server.offer(offer)
        server.expect("accepted")
        while server.expect("progress").progress.key != offer.key:
            pass
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    declined = server.expect("declined").declined
    assert (declined.key, declined.why) == (offer.key, pb.ENDING)
    server.expect("leaving")


def test_worker_that_dies_ends_the_process(tmp_path: Path, server: Federation) -> None:
    """Or the agent would stay joined and accept what nobody works on; whoever started it starts it again."""
    code = (
        "import sys, edge_client.__main__ as m\n"
        "from edge_client import keep\n"
        "def broken(*_): raise RuntimeError('bug')\n"
        "keep.Keep.begin = broken\n"
        "sys.exit(m.main(sys.argv[1:]))"
    )
    offer = server.offer(work(server, 0))
    command = [sys.executable, "-c", code, "--server", server.address, "--name", "h", "--data", "named"]
    done = subprocess.run(
        command, env=environment(tmp_path), cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 20, done.stderr
    assert "edge-agent: a thread that works on tasks has died: RuntimeError: bug" in done.stderr
    assert "Traceback" in done.stderr
    declined = server.expect("declined").declined
    assert (declined.key, declined.why) == (offer.key, pb.ENDING)


def _task(server: Federation) -> pb.Record:
    model = Weights({"classifier.weight": np.zeros((2, 64), np.float32), "classifier.bias": np.zeros(2, np.float32)})
    return records.encode(fedavg.Task(model, first=None), server.blobs.put)


def test_doctor_of_a_healthy_device(tmp_path: Path, data: Path) -> None:
    server = _with_health(tmp_path)
    own = certificates.files(tmp_path / "tls", AUTHORITY, certificates.host("h", AUTHORITY))
    flags = ("--tls-ca", own.ca, "--tls-cert", own.certificate, "--tls-key", own.key)
    done = run(tmp_path, "doctor", "--server", server.address, "--data", str(data), "--name", "h", *map(str, flags))
    server.stop()
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line[:4].strip() for line in lines] == ["ok"] * 7
    for about in ("clock", "certificate", "connection", "disk", "data set", "learner", "memory"):
        assert re.search(rf"^ok    {about}\b", done.stdout, re.MULTILINE)
    assert re.search(r"classes \('\w+', '\w+'", done.stdout)


def test_doctor_says_what_to_do_and_ends_with_the_first_fault(tmp_path: Path) -> None:
    own = certificates.files(tmp_path / "tls", AUTHORITY, certificates.host("other", AUTHORITY))
    flags = ("--tls-ca", own.ca, "--tls-cert", own.certificate, "--tls-key", own.key)
    done = run(
        tmp_path, "doctor", "--server", "localhost:1", "--data", "nowhere", "--name", "h", "--json", *map(str, flags)
    )
    answer = json.loads(done.stdout)
    found = {finding["about"]: finding for finding in answer["findings"]}
    assert done.returncode == answer["exit_code"] == 12
    assert "--name" in found["certificate"]["text"]
    assert found["connection"]["code"] == 30
    assert "check the address in --server" in found["connection"]["text"]
    assert found["data set"]["code"] == 14
    assert found["disk"]["code"] == 0


def test_doctor_does_not_disturb_a_running_agent(tmp_path: Path, server: Federation) -> None:
    with started(tmp_path, server, "--data", "named", "--state-dir", str(tmp_path / "s")) as process:
        server.expect("hello")
        run(tmp_path, "doctor", "--server", server.address, "--data", "named", "--state-dir", str(tmp_path / "s"))
        server.offer(work(server, 0, agent="stranger"))
        server.expect("declined")
        assert process.poll() is None
    assert server.calls["join"] == 1


def _with_health(tmp_path: Path) -> Federation:
    from grpc_health.v1 import health, health_pb2, health_pb2_grpc

    credentials = certificates.server_credentials(certificates.make("localhost", AUTHORITY), AUTHORITY)
    servicer = health.HealthServicer()
    servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    return Federation(
        tmp_path,
        credentials=credentials,
        add=lambda server: health_pb2_grpc.add_HealthServicer_to_server(servicer, server),
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_real_training_over_real_grpc(tmp_path: Path, server: Federation, data: Path, workers: int) -> None:
    """PREPARE, two steps of FedAvg on the numpy learner, and an evaluation: memory, reply and report in place."""
    flags = ("--workers", str(workers)) if workers else ()
    task = _task(server)
    with started(tmp_path, server, "--data", str(data), *flags):
        server.offer(work(server, 0, kind=pb.PREPARE, task=pb.Record()))
        prepared = server.expect("prepared").prepared
        server.offer(work(server, 0, task=task, round=1, phase="train"))
        first = server.reply()
        server.offer(work(server, 1, task=task, round=2, phase="train", memory_step=0, merged_step=0))
        second = server.reply()
        evaluate = {"kind": pb.EVALUATE, "memory_step": 1, "merged_step": 1, "moments": ["merged"]}
        server.offer(work(server, 1, task=task, round=2, **evaluate))
        evaluated = server.reply()
    assert list(prepared.classes) == ["0", "1"]
    assert prepared.data.n_train == first.report.n_samples > 0
    reply = records.decode(fedavg.Reply, second.record, lambda ref, _: server.blobs.open(ref), where="reply")
    assert any(np.any(array) for array in reply.weights.values())
    assert first.report.warmup
    assert not second.report.warmup
    assert first.report.wall_s > 0.0
    assert not first.report.shared
    assert evaluated.evaluations[0].n > 0
