"""Operations over the real socket, and over TCP where only an operator's certificate will do."""

import asyncio
import json
import queue
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
from running_front import WAIT_S, running

from common import pb
from common.errors import EXIT_CONFIG, EXIT_LINK, EXIT_REFUSED, EXIT_RUN, EXIT_STATE, ConfigError
from common.payloads import Blob, Mask, Payload, Prompt, Prototypes, Sparse, SparseEntries, Weights
from server.__main__ import main
from server.fleet import Fleet
from server.listen import Tls
from server.operations import SERVICE, SOCKET, Operations, local_server, socket_path
from tests.certificates import Authority, Signed

REPORT = pb.RoundReport(
    round=1,
    seconds=1.5,
    agents=[
        pb.AgentReport(
            agent="pi",
            phase="train",
            outcome="merged",
            report=pb.ResourceReport(
                seconds={"train": 1.25}, cpu_s=2.0, rss_peak_delta_bytes=64_000_000, model_bytes=8_000_000, n_samples=40
            ),
            transfer=pb.TransferReport(bytes_up=3_000_000, bytes_down=5_000_000_000),
        ),
        pb.AgentReport(agent="jetson", outcome="late", reason="too slow"),
    ],
    metrics={"accuracy": 0.75},
)


class Script:
    """Runs as a test wants them."""

    def __init__(self) -> None:
        self.submitted: list[tuple[str, str, Mapping[str, bytes]]] = []
        self.results: dict[str, Payload] = {}
        self.events: queue.SimpleQueue[pb.RunEvent | None] = queue.SimpleQueue()
        self.watched, self.unwatched = threading.Event(), threading.Event()
        self.status = "running"
        self.others: list[pb.RunSummary] = []
        self.stopped: list[str] = []

    def summary(self, run: str) -> pb.RunSummary:
        if run in [other.run for other in self.others]:
            return pb.RunSummary(run=run, status="waiting")
        if run != "first":
            raise ConfigError(f"this server has no run {run!r}; it has: first")
        return pb.RunSummary(run=run, method="fedavg", status=self.status, round=1, rounds=3)

    def submit(self, text: str, name: str, files: Mapping[str, bytes]) -> pb.RunSummary:
        self.submitted.append((text, name, files))
        return pb.RunSummary(run=name or "first", status="waiting")

    def list(self) -> list[pb.RunSummary]:
        return [self.summary("first"), *self.others]

    def detail(self, run: str) -> pb.RunDetail:
        evaluation = pb.EvaluationReport(round=1, moment="merged", missing=["jetson"], metrics={"loss": 0.5})
        return pb.RunDetail(summary=self.summary(run), rounds=[REPORT], evaluations=[evaluation])

    def watch(self, run: str, from_round: int) -> "queue.SimpleQueue[pb.RunEvent | None]":
        self.summary(run)
        self.watched.set()
        return self.events

    def unwatch(self, run: str, events: "queue.SimpleQueue[pb.RunEvent | None]") -> None:
        assert events is self.events
        self.unwatched.set()

    def stop(self, run: str) -> pb.RunSummary:
        summary = self.summary(run)
        self.stopped.append(run)
        self.status = summary.status = "stopped"
        return summary

    def export(self, run: str) -> Mapping[str, Payload]:
        self.summary(run)
        return self.results


@contextmanager
def operating(script: Script, state_dir: Path, fleet: Fleet | None = None, *, told: bool = True) -> Iterator[None]:
    started: queue.SimpleQueue[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = queue.SimpleQueue()

    async def serve() -> None:
        operations = Operations(script, Fleet() if fleet is None else fleet)
        server = local_server(operations, state_dir)
        await server.start()
        stop = asyncio.Event()
        started.put((asyncio.get_running_loop(), stop))
        await stop.wait()
        if told:
            operations.end()
        await server.stop(0.1)
        operations.close()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    loop, stop = started.get(timeout=WAIT_S)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(WAIT_S)
        assert not thread.is_alive()


Ask = Callable[..., tuple[int, str, str]]


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def ask(script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Ask]:
    """A command against a running server: exit code, standard output, standard error."""

    def asked(*words: str) -> tuple[int, str, str]:
        code = main([*words, "--state-dir", str(tmp_path)])
        out, err = capsys.readouterr()
        return code, out, err

    with operating(script, tmp_path):
        yield asked


def test_only_this_user_can_open_the_socket(ask: Ask, tmp_path: Path) -> None:
    mode = (tmp_path / SOCKET).stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_submit_sends_the_file_and_what_it_names(ask: Ask, script: Script, tmp_path: Path) -> None:
    text = '[run]\nmethod = "fedavg"\nrounds = 1\ninit = "first.npz"\n'
    text += '[[stage]]\nname = "one"\nset = {"data.partition" = "cut.npz"}\n'
    (tmp_path / "run.toml").write_text(text)
    (tmp_path / "first.npz").write_bytes(b"1")
    (tmp_path / "cut.npz").write_bytes(b"2")
    code, out, _ = ask("submit", str(tmp_path / "run.toml"), "--name", "mine")
    assert (code, out) == (0, "mine: waiting; follow it with: fed-server watch mine\n")
    assert script.submitted == [(text, "mine", {"first.npz": b"1", "cut.npz": b"2"})]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "cannot read the run file"),
        (b"\xff", "it is not text in UTF-8"),
        (b"[run", "this is not TOML"),
        (b'[run]\ninit = "no.npz"', "names a file that cannot be read: "),
    ],
)
def test_run_file_that_cannot_be_sent_is_named(ask: Ask, tmp_path: Path, text: bytes | None, reason: str) -> None:
    if text is not None:
        (tmp_path / "run.toml").write_bytes(text)
    code, _, err = ask("submit", str(tmp_path / "run.toml"))
    assert code == EXIT_CONFIG
    assert err.startswith("fed-server: ")
    assert reason in err
    assert "run.toml" in err


def test_runs_are_listed_and_shown_with_what_they_cost(ask: Ask) -> None:
    code, out, _ = ask("ls")
    assert code == 0
    assert out.splitlines()[1].split()[:4] == ["first", "fedavg", "running", "1/3"]
    code, out, _ = ask("show", "first")
    assert code == 0
    (row,) = (line.split() for line in out.splitlines() if line.lstrip().startswith("1 ") and "1/2" in line)
    assert row == ["1", "1.5", "1/2", "1.25", "2", "64", "8", "3", "5000", "0.75", "jetson", "late"]
    code, out, _ = ask("show", "first", "--round", "1")
    assert code == 0
    assert "too slow" in out
    code, _, err = ask("show", "first", "--round", "9")
    assert code == EXIT_CONFIG
    assert "has 1 to 1, got 9" in err


def test_show_as_json_has_every_field_and_numbers_as_numbers(ask: Ask) -> None:
    code, out, _ = ask("show", "first", "--json")
    assert code == 0
    detail = json.loads(out)
    pi, jetson = detail["rounds"][0]["agents"]
    assert (pi["transfer"]["bytes_down"], pi["report"]["seconds"]) == (5_000_000_000, {"train": 1.25})
    assert (jetson["outcome"], "report" in jetson) == ("late", False)
    assert detail["evaluations"][0]["missing"] == ["jetson"]


def test_unknown_run_is_the_servers_own_sentence(ask: Ask) -> None:
    for command in ("show", "stop", "export", "watch"):
        code, out, err = ask(command, "second")
        assert (code, out) == (EXIT_CONFIG, "")
        assert err == "fed-server: this server has no run 'second'; it has: first\n"
    code, _, err = ask("show", "second", "--json")
    assert json.loads(err)["exit_code"] == code == EXIT_CONFIG


def test_stop_says_where_it_stopped(ask: Ask) -> None:
    assert ask("stop", "first")[:2] == (0, "first: stopped after round 1 of 3\n")


def test_stop_of_a_pattern_stops_what_is_not_over_the_last_first(ask: Ask, script: Script) -> None:
    status = {"table.a": "done", "table.b": "running", "table.c": "waiting", "tables.d": "running"}
    script.others = [pb.RunSummary(run=run, status=text) for run, text in status.items()]
    code, out, _ = ask("stop", "table.*")
    assert (code, script.stopped) == (0, ["table.c", "table.b"])
    assert out.splitlines()[0].startswith("table.c: stopped")
    assert ask("stop", "table.a")[0] == 0
    assert script.stopped[2:] == ["table.a"]
    code, _, err = ask("stop", "chair.*")
    assert (code, len(script.stopped)) == (EXIT_CONFIG, 3)
    assert err == "fed-server: no run that waits or runs has a name like 'chair.*'; fed-server ls shows them\n"


def test_watch_follows_to_the_end(ask: Ask, script: Script) -> None:
    running = pb.RunSummary(run="first", status="running", rounds=3)
    script.events.put(pb.RunEvent(summary=running, round=REPORT))
    script.events.put(pb.RunEvent(summary=pb.RunSummary(run="first", status="done")))
    script.events.put(None)
    code, out, _ = ask("watch", "first")
    assert code == 0
    assert out.splitlines() == ["round 1 of 3: 1/2 agents, 1.50 s, accuracy 0.7500", "first: done"]
    assert script.unwatched.wait(WAIT_S)


def test_watch_of_a_failed_run_says_why_and_exits_so(ask: Ask, script: Script) -> None:
    script.events.put(pb.RunEvent(summary=pb.RunSummary(run="first", status="failed", reason="no agent can serve it")))
    script.events.put(None)
    code, out, err = ask("watch", "first", "--json")
    assert code == EXIT_RUN
    assert json.loads(out)["summary"]["status"] == "failed"
    assert "run first failed: no agent can serve it" in err


def test_one_who_stops_watching_is_forgotten(ask: Ask, script: Script, tmp_path: Path) -> None:
    with grpc.insecure_channel(f"unix:{tmp_path / SOCKET}") as channel:
        call = channel.unary_stream(
            f"/{SERVICE}/WatchRun", pb.WatchRunRequest.SerializeToString, pb.RunEvent.FromString
        )(pb.WatchRunRequest(run="first"), timeout=WAIT_S)
        script.events.put(pb.RunEvent(note="hello"))
        assert next(call).note == "hello"
        call.cancel()
    assert script.unwatched.wait(WAIT_S)


def test_agents_are_listed(script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fleet = Fleet()
    described = pb.AgentDescription(
        name="pi/0", tags=["kitchen"], data=pb.DataFacts(n_train=90, classes_sha256=b"\x01")
    )
    hello = pb.Hello(host="pi", instance="i", agents=[described], learners=["numpy"])
    fleet.restore([(hello, 0.0)])
    with operating(script, tmp_path, fleet):
        assert main(["agents", "--state-dir", str(tmp_path), "--json"]) == 0
        (agent,) = json.loads(capsys.readouterr().out)["agents"]
        assert main(["agents", "--state-dir", str(tmp_path)]) == 0
        lines = capsys.readouterr().out.splitlines()
    assert (agent["name"], agent["online"], agent["tags"], agent["data"]["classes_sha256"]) == (
        "pi/0",
        False,
        ["kitchen"],
        "01",
    )
    assert lines[1].startswith("pi/0")


def test_export_writes_files_that_numpy_reads(ask: Ask, script: Script, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    big = rng.random((500, 600), dtype=np.float32)
    ids, counts, vectors = np.array([1, 4]), np.array([2, 3]), rng.random((2, 3), dtype=np.float32)
    entries = SparseEntries((4, 4), np.array([1, 9]), np.array([0.5, 2.0], np.float32))
    bits = np.array([True, False, True])
    script.results = {
        "model": Weights({"file": big, "head/bias": np.arange(3)}),
        "prompt": Prompt(rng.random((1, 2, 3), dtype=np.float32)),
        "prototypes": Prototypes(ids, counts, vectors),
        "mask": Mask({"w": bits}),
        "sparse": Sparse({"w": entries}),
        "graph": Blob("application/onnx", b"onnx"),
    }
    out_dir = tmp_path / "out"
    code, out, _ = ask("export", "first", "--out", str(out_dir))
    assert code == 0
    assert sorted(out.split()) == sorted(str(path) for path in out_dir.iterdir())
    with np.load(out_dir / "model.npz") as model:
        assert sorted(model) == ["file", "head/bias"]
        assert np.array_equal(model["file"], big)
    with np.load(out_dir / "prototypes.npz") as stored:
        assert np.array_equal(stored["vectors"], vectors)
        assert np.array_equal(stored["class_ids"], ids)
    with np.load(out_dir / "mask.npz") as stored:
        assert np.array_equal(stored["w"], bits)
    with np.load(out_dir / "sparse.npz") as stored:
        assert {name: stored[name].tolist() for name in stored} == {
            "w.shape": [4, 4],
            "w.indices": [1, 9],
            "w.values": [0.5, 2.0],
        }
    with np.load(out_dir / "prompt.npz") as stored:
        assert stored["context"].shape == (1, 2, 3)
    assert (out_dir / "graph.onnx").read_bytes() == b"onnx"


def test_export_into_a_folder_that_cannot_be_written(ask: Ask, script: Script, tmp_path: Path) -> None:
    script.results = {"model": Weights({"w": np.zeros(3, np.float32)})}
    (tmp_path / "file").write_text("")
    code, _, err = ask("export", "first", "--out", str(tmp_path / "file"))
    assert code == EXIT_STATE
    assert "choose another folder with --out" in err


def test_no_server_on_the_state_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "--state-dir", str(tmp_path)]) == EXIT_LINK
    assert f"no server runs on the state folder {tmp_path}" in capsys.readouterr().err
    with operating(Script(), tmp_path):
        pass
    (tmp_path / SOCKET).touch()  # left behind by a server that was killed
    assert main(["ls", "--state-dir", str(tmp_path)]) == EXIT_LINK
    assert "no server answers at" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("told", "says"),
    [(True, "the server is stopping"), (False, "the server at {} ended")],
    ids=["in order", "cut off"],
)
def test_a_server_that_ends_while_a_run_is_watched(
    script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str], told: bool, says: str
) -> None:
    codes: list[int] = []
    with operating(script, tmp_path, told=told):
        watch = threading.Thread(target=lambda: codes.append(main(["watch", "first", "--state-dir", str(tmp_path)])))
        watch.start()
        assert script.watched.wait(WAIT_S)
    watch.join(WAIT_S)
    assert codes == [EXIT_LINK]
    expected = f"fed-server: {says.format(tmp_path / SOCKET)}; its runs go on when it is started again\n"
    assert expected in capsys.readouterr().err


def test_state_folder_with_a_path_too_long_for_a_socket(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="choose a shorter --state-dir") as raised:
        socket_path(tmp_path / ("x" * 100))
    assert raised.value.exit_code == EXIT_STATE


def test_over_tcp_only_an_operators_certificate_will_do(
    script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    authority = Authority(tmp_path)
    server = authority.server()
    tls = Tls(server.certificate, server.key, authority.file)
    operations = Operations(script, Fleet())

    def asked(signed: Signed) -> int:
        files = ["--tls-cert", str(signed.certificate), "--tls-key", str(signed.key), "--tls-ca", str(authority.file)]
        return main(["ls", "--server", up.address, *files])

    with running(tls=tls, more=[operations.methods(guarded=True)]) as up:
        assert asked(authority.operator()) == 0
        assert "fedavg" in capsys.readouterr().out
        assert asked(authority.host("pi")) == EXIT_REFUSED
        assert "operations need an operator's certificate" in capsys.readouterr().err
    assert asked(authority.operator()) == EXIT_LINK
    assert f"no server answers at {up.address}; is it running, is --server its address" in capsys.readouterr().err
    with running(more=[operations.methods(guarded=True)]) as up, up.channel() as channel:
        stop = channel.unary_unary(f"/{SERVICE}/StopRun", pb.StopRunRequest.SerializeToString, None)
        with pytest.raises(grpc.RpcError) as raised:
            stop(pb.StopRunRequest(run="first"), timeout=WAIT_S)
        assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert script.status == "running"
    operations.close()
