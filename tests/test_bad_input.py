"""Every mistake that docs/errors.md lists, made with the real programs: the sentence, who says it, the exit code.

The page is the expectation. What differs from machine to machine is masked: DIR, PORT, PID, TIME, ID, MACHINE.
"""

import contextlib
import http.server
import itertools
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import numpy as np
import pytest

from benchmarks.__main__ import EPILOG as BENCH_HELP
from benchmarks.fleet import free_port
from common import errors, pb
from edge_client import folder as state_folder
from edge_client.__main__ import _parser as agent_parser
from proto import federation_pb2_grpc as rpc
from server.__main__ import parser as server_parser
from tests.certificates import Authority, Signed
from tests.processes import PATIENCE_S, Federation, Program, federation, write_data
from tests.relay import relay

PAGE = Path(__file__).parent.parent / "docs" / "errors.md"
STAYS = "stays"  # in place of an exit code: it says so, goes on and tries again
RUN = """
[run]
method = "fedavg"
rounds = 1
[model]
{model}
[agents]
min = 1
tags = ["{tag}"]
[data]
classes = [{classes}]
[evaluation]
every = 0
"""
TASKS = """
[run]
method = "{method}"
rounds = {rounds}
{init}
[model]
name = "resnet10"
input = "8x8x3"
width = {width}
stem = "small"
head = "agent"
[objective]
name = "{objective}"
[optimiser]
lr = 0.01
batch = {batch}
[agents]
min = {n}
tags = ["{tag}"]
[evaluation]
every = 0
"""
LARGE = 'name = "mlp"\ninput = "6"\nhidden = 40000'  # 1.6 MB; 3.2 MB to train
SMALL = 'name = "linear"\ninput = "6"'


@dataclass(frozen=True)
class Said:
    """One row of the page."""

    sentence: str
    who: str
    code: str


@dataclass
class World:
    """A server in the clear, one with TLS, and what is needed to make mistakes with them."""

    folder: Path
    clear: Federation
    tls: Federation
    authority: Authority
    other: Authority
    remade: Authority  # of the same name as the first
    started: list[Program] = field(default_factory=list)
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def data(self, name: str) -> Path:
        return write_data(self.folder / f"{name}.npz", 30, seed=1)

    # ------------------------------------------------------------------ programs that end

    def server(self, *words: str) -> Said:
        return self._ended("fed-server", *words, *self._state("server", words))

    def agent(self, *words: str) -> Said:
        return self._ended("edge-agent", *words, *self._state("agent", words))

    def doctor(self, about: str, *words: str) -> Said:
        """Its first line that fails, which is the one about this."""
        ran = self._run("edge-agent", "doctor", *words, *self._state("agent", words))
        failed = [line for line in ran.stdout.splitlines() if line.startswith("FAIL")]
        assert failed, ran
        _, found, text = re.split(r"\s\s+", failed[0], maxsplit=2)
        assert found == about, ran.stdout
        return Said(self.masked(text), "edge-agent doctor", str(ran.returncode))

    def asked(self, *words: str, of: Federation | None = None) -> Said:
        """An operator's command; over the socket of that server."""
        given = () if of is None else ("--state-dir", str(of.state))
        return self._ended("fed-server", *words, *given, who=f"fed-server {words[0]}")

    def submitted(self, name: str, text: str) -> Said:
        path = self.folder / f"{name}.toml"
        path.write_text(text)
        return self.asked("submit", str(path), of=self.clear)

    # ------------------------------------------------------------------ agents that stay

    def log(self, name: str, *words: str) -> Said:
        """The reason in the agent's log why it is not joined; it is still there afterwards."""
        program = self.started_agent(name, *words, "--data", "named")
        reason = self.reason(program, "not_joined")
        assert program.popen is not None
        assert program.popen.poll() is None, program.text()
        program.kill()
        return Said(reason, "edge-agent log", STAYS)

    def started_agent(self, name: str, *words: str) -> Program:
        state = self.folder / f"state-{name}-{next(self.numbers)}"
        program = Program(
            [*PROGRAMS["edge-agent"], "--name", name, "--state-dir", str(state), *words], state.with_suffix(".log")
        )
        self.started.append(program)
        return program.start()

    def told(self, run: str, start: str) -> Said:
        """What the operator who watches a run reads below its rounds."""
        ran = self._run("fed-server", "watch", run, "--state-dir", str(self.clear.state))
        lines = [line.strip() for line in ran.stdout.splitlines() if line.strip().startswith(start)]
        assert lines, ran
        return Said(self.masked(lines[0]), "fed-server watch", str(ran.returncode))

    def reason(self, program: Program, event: str) -> str:
        end = time.monotonic() + PATIENCE_S
        while not (found := re.search(rf'{event} .*reason="(.*)"', program.text())):
            assert time.monotonic() < end, program.text()
            time.sleep(0.02)
        return self.masked(found[1])

    def impossible(self, tag: str, *words: str, model: str = SMALL, classes: str = '"0", "1", "2"') -> list[Said]:
        """A run that the one agent with this tag cannot serve: what its log says, and what ends the run."""
        path = self.folder / f"{tag}.toml"
        path.write_text(RUN.format(model=model, classes=classes, tag=tag))
        assert self.asked("submit", str(path), "--name", tag, of=self.clear).code == "0"
        address = f"127.0.0.1:{self.clear.port}"
        program = self.started_agent(tag, "--server", address, "--tags", tag, "--data", str(self.data(tag)), *words)
        said = Said(self.reason(program, "task_failed"), "edge-agent log", STAYS)
        ended = self.asked("watch", tag, of=self.clear)
        program.kill()
        return [said, ended]

    # ------------------------------------------------------------------ runs of agents with different tasks

    def task(self, name: str, n_classes: int, n: int = 8) -> Path:
        images = np.random.default_rng(n).integers(0, 255, (n, 8, 8, 3)).astype(np.uint8)
        classes = np.array([f"class{c}" for c in range(n_classes)])
        path = self.folder / f"{name}.npz"
        path.parent.mkdir(exist_ok=True)
        np.savez(path, x=images, y=np.arange(n) % n_classes, classes=classes)
        return path

    def pretraining(self, tag: str, *, batch: int = 8) -> None:
        run = TASKS.format(
            method="fedsimclr", objective="simclr", init="", n=1, rounds=1, width=4, batch=batch, tag=tag
        )
        self._begun(tag, run)

    def heads(self, tag: str, *, init: str = "", width: int = 4, n: int = 1, rounds: int = 1) -> str:
        run = TASKS.format(
            method="task_heads", objective="cross_entropy", init=init, n=n, rounds=rounds, width=width, batch=8, tag=tag
        )
        self._begun(f"{tag}-heads", run)
        return f"{tag}-heads"

    def _begun(self, name: str, text: str) -> None:
        (self.folder / f"{name}.toml").write_text(text)
        said = self.asked("submit", str(self.folder / f"{name}.toml"), "--name", name, of=self.clear)
        assert said.code == "0", said

    def tagged(self, tag: str, *data: str) -> Program:
        return self.started_agent(data[0].partition("=")[0], *at(self.clear), "--tags", tag, "--data", *data)

    # ------------------------------------------------------------------ certificates

    def owned(self, own: Signed | None, *, ca: Path | None = None) -> tuple[str, ...]:
        given = ("--tls-ca", str(ca or self.authority.file))
        return given if own is None else (*given, "--tls-cert", str(own.certificate), "--tls-key", str(own.key))

    def to_tls(self, own: Signed | None, *, ca: Path | None = None) -> tuple[str, ...]:
        return "--server", f"127.0.0.1:{self.tls.port}", *self.owned(own, ca=ca)

    # ------------------------------------------------------------------

    def masked(self, text: str) -> str:
        text = text.replace(str(self.folder), "DIR")
        text = re.sub(r"(?<=[]\w]):\d{4,5}\b", ":PORT", text)
        text = re.sub(r"\bprocess \d+", "process PID", text)
        text = re.sub(r"\b[0-9a-f]{32}\b", "ID", text)
        text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+(\+00:00|Z)?", "TIME", text)
        text = re.sub(r"\(this build has: .*?\)", "(this build has: METHODS)", text)
        return re.sub(r"(from another installation) \(.*?\)(?=;)", r"\1 (MACHINE)", text)

    def _state(self, kind: str, words: tuple[str, ...]) -> tuple[str, ...]:
        return (
            () if "--state-dir" in words else ("--state-dir", str(self.folder / f"state-{kind}-{next(self.numbers)}"))
        )

    def _run(self, program: str, *words: str) -> "subprocess.CompletedProcess[str]":
        command = [*PROGRAMS[program], *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    def _ended(self, program: str, *words: str, who: str = "") -> Said:
        ran = self._run(program, *words)
        assert "Traceback" not in ran.stderr, ran.stderr
        last = (ran.stderr.splitlines() or [""])[-1]
        return Said(self.masked(last.removeprefix(f"{program}: ")), who or program, str(ran.returncode))


PROGRAMS = {"fed-server": (sys.executable, "-m", "server"), "edge-agent": (sys.executable, "-m", "edge_client")}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("bad")
    (folder / "clear").mkdir()
    (folder / "tls").mkdir()
    with federation(folder / "clear") as clear, federation(folder / "tls") as tls:
        for name in ("other", "remade"):
            (folder / name).mkdir()
        authority, other = Authority(folder), Authority(folder / "other", "other")
        remade = Authority(folder / "remade")
        clear.server()
        own = authority.server()
        pair = ("--tls-cert", str(own.certificate), "--tls-key", str(own.key))
        tls.server(*pair, "--client-ca", str(authority.file))
        made = World(folder, clear, tls, authority, other, remade)
        clear.operations()
        tls.operations()
        try:
            yield made
        finally:
            for program in made.started:
                program.kill()


Situation = Callable[[World], list[Said]]
SITUATIONS: dict[str, Situation] = {}


def situation(text: str) -> Callable[[Situation], Situation]:
    def add(function: Situation) -> Situation:
        SITUATIONS[text] = function
        return function

    return add


# ---------------------------------------------------------------------- run files


@situation("unknown key in a run file")
def _(world: World) -> list[Said]:
    return [world.submitted("key", '[run]\nmethod = "fedavg"\nrounds = 1\n[optimiser]\nepoch = 2\n')]


@situation("unknown method in a run file")
def _(world: World) -> list[Said]:
    return [world.submitted("method", '[run]\nmethod = "fedavgg"\nrounds = 1\n[model]\nname = "linear"\n')]


@situation("run file that is not TOML")
def _(world: World) -> list[Said]:
    return [world.submitted("text", "[run\nmethod = 1\n")]


@situation("run file that is not there")
def _(world: World) -> list[Said]:
    return [world.asked("submit", str(world.folder / "nowhere.toml"), of=world.clear)]


@situation("run file that names a file that is not there")
def _(world: World) -> list[Said]:
    text = '[run]\nmethod = "fedavg"\nrounds = 1\ninit = "first.npz"\n[model]\nname = "linear"\n'
    return [world.submitted("names", text)]


# ---------------------------------------------------------------------- data


@situation("no data given")
def _(world: World) -> list[Said]:
    return [world.agent()]


@situation("missing data")
def _(world: World) -> list[Said]:
    where = str(world.folder / "nowhere")
    return [world.agent("--data", where)]


@situation("unreadable data: a broken .npz")
def _(world: World) -> list[Said]:
    path = world.folder / "broken.npz"
    path.write_bytes(world.data("whole").read_bytes()[:200])
    return [world.agent("--data", str(path))]


@situation("predict: the agent has no model of the run")
def _(world: World) -> list[Said]:
    own = ("--name", "device", "--state-dir", str(world.folder / "nothing"))
    return [world.agent("predict", *own, "--data", str(world.data("whole")), "--run", "birds", "new.npz")]


@situation("unreadable data: a single image")
def _(world: World) -> list[Said]:
    path = world.folder / "photo.png"
    path.write_bytes(b"\x89PNG\r\n")
    return [world.agent("--data", str(path))]


@situation("unreadable data: an .npz without labels")
def _(world: World) -> list[Said]:
    np.savez(world.folder / "unlabelled.npz", x=np.zeros((3, 2), np.float32))
    return [world.agent("--data", str(world.folder / "unlabelled.npz"))]


@situation("unreadable data: images that are none")
def _(world: World) -> list[Said]:
    for name in ("cats", "dogs"):
        (world.folder / "photos" / name).mkdir(parents=True)
        (world.folder / "photos" / name / "1.jpg").write_bytes(b"not a picture")
    return [world.agent("--data", str(world.folder / "photos"))]


@situation("no images")
def _(world: World) -> list[Said]:
    (world.folder / "empty" / "cats").mkdir(parents=True)
    return [world.agent("--data", str(world.folder / "empty"))]


@situation("classes that the run does not know")
def _(world: World) -> list[Said]:
    return world.impossible("tulips", classes='"0", "1"')


# ---------------------------------------------------------------------- pre-training and heads


@situation("an agent with one image to pre-train on")
def _(world: World) -> list[Said]:
    pytest.importorskip("torch")
    world.pretraining("single")
    agent = world.tagged("single", f"single={world.task('single', 1, n=1)}")
    return [
        Said(world.reason(agent, "task_skipped"), "edge-agent log", STAYS),
        world.told("single", "single/single skipped: "),
    ]


@situation("pre-training in batches of one")
def _(world: World) -> list[Said]:
    pytest.importorskip("torch")
    world.pretraining("ones", batch=1)
    world.tagged("ones", f"ones={world.task('ones', 2)}")
    return [world.asked("watch", "ones", of=world.clear)]


@situation("a backbone of another architecture")
def _(world: World) -> list[Said]:
    pytest.importorskip("torch")
    world.pretraining("narrow")
    world.tagged("narrow", f"narrow={world.task('narrow', 2)}")
    assert world.asked("watch", "narrow", of=world.clear).code == "0"
    return [world.asked("watch", world.heads("narrow", init='init_from = "narrow"', width=8), of=world.clear)]


@situation("two tasks of one name with other classes")
def _(world: World) -> list[Said]:
    pytest.importorskip("torch")
    run = world.heads("same", n=2)
    for name, n_classes in (("first", 2), ("second", 3)):
        world.tagged("same", f"{name}={world.task(f'{name}/plants', n_classes)}")
    return [world.told(run, "second/second failed: ")]


@situation("a task whose classes changed during a run")
def _(world: World) -> list[Said]:
    pytest.importorskip("torch")
    run = world.heads("changing", rounds=1000)
    agent = world.tagged("changing", f"changing={world.task('changing', 2)}")
    world.clear.wait(run, lambda detail: len(detail.rounds) >= 1)
    agent.kill()
    world.task("changing", 3)
    said = Said(world.reason(agent.start(), "task_failed"), "edge-agent log", STAYS)
    world.asked("stop", run, of=world.clear)
    return [said]


# ---------------------------------------------------------------------- names


@situation("two agents of one name, on two devices")
def _(world: World) -> list[Said]:
    words = at(world.clear)
    first = world.started_agent("twin", *words, "--data", "named")
    end = time.monotonic() + PATIENCE_S
    while "joined server" not in first.text():
        assert time.monotonic() < end, first.text()
        time.sleep(0.02)
    return [world.log("twin", *words)]


@situation("two agents of one name, on one device")
def _(world: World) -> list[Said]:
    return [world.agent("--data", "a=named", "--data", "a=named")]


@situation("a name that no host may have")
def _(world: World) -> list[Said]:
    return [world.agent("--data", "named", "--name", "a/b")]


# ---------------------------------------------------------------------- addresses


@situation("wrong port: nothing listens there")
def _(world: World) -> list[Said]:
    words = ("--server", f"127.0.0.1:{free_port()}")
    return [world.log("lost", *words), world.doctor("connection", "--data", "named", *words)]


@situation("wrong port: another program listens there")
def _(world: World) -> list[Said]:
    with another_program() as port:
        return [world.log("stray", "--server", f"127.0.0.1:{port}")]


@situation("no such server")
def _(world: World) -> list[Said]:
    return [world.log("dreamer", "--server", "no-such-host.invalid:8470", "--insecure")]


@situation("an address without a port")
def _(world: World) -> list[Said]:
    return [world.agent("--data", "named", "--server", "localhost"), world.server("--listen", "localhost")]


@situation("port in use")
def _(world: World) -> list[Said]:
    return [world.server("--listen", f"127.0.0.1:{world.clear.port}")]


@situation("an address that this machine does not have")
def _(world: World) -> list[Said]:
    return [world.server("--insecure", "--listen", "192.0.2.1:8470")]


@situation("the server listens on IPv4 only, the agent calls IPv6")
def _(world: World) -> list[Said]:
    if not has_ipv6():
        pytest.skip("needs IPv6 on loopback")
    words = ("--server", f"[::1]:{world.clear.port}")
    return [world.log("six", *words)]


@situation("the server listens on IPv6 only, the agent calls IPv4")
def _(world: World) -> list[Said]:
    if not has_ipv6():
        pytest.skip("needs IPv6 on loopback")
    (world.folder / "six").mkdir()
    with federation(world.folder / "six") as six:
        six.server(listen=f"[::1]:{six.port}")
        six.operations()
        return [world.log("four", *at(six))]


@situation("no server runs here")
def _(world: World) -> list[Said]:
    return [world.asked("ls", "--state-dir", str(world.folder / "nobody"))]


# ---------------------------------------------------------------------- TLS


@situation("TLS on one side only: the agent without")
def _(world: World) -> list[Said]:
    return [world.log("plain", *at(world.tls))]


@situation("TLS on one side only: the server without")
def _(world: World) -> list[Said]:
    return [world.log("wary", *at(world.clear), *world.owned(world.authority.host("wary")))]


@situation("no TLS to another machine")
def _(world: World) -> list[Said]:
    return [world.agent("--data", "named", "--server", "192.0.2.1:8470"), world.server("--listen", "0.0.0.0:8470")]


@situation("wrong CA: the agent does not know the server's")
def _(world: World) -> list[Said]:
    return [world.log("wrong", *world.to_tls(world.authority.host("wrong"), ca=world.other.file))]


@situation("wrong CA: the server's was made anew under the same name")
def _(world: World) -> list[Said]:
    return [world.log("stale", *world.to_tls(world.authority.host("stale"), ca=world.remade.file))]


@situation("wrong CA: the server does not know the agent's")
def _(world: World) -> list[Said]:
    return [world.log("foreign", *world.to_tls(world.other.host("foreign")))]


@situation("no certificate of the agent's own")
def _(world: World) -> list[Said]:
    return [world.log("bare", *world.to_tls(None))]


@situation("expired certificate of the agent")
def _(world: World) -> list[Said]:
    old = world.authority.host("old", ends=timedelta(hours=-1))
    words = world.to_tls(old)
    return [world.log("old", *words), world.doctor("certificate", "--data", "named", "--name", "old", *words)]


@situation("expired certificate of the server, at its start")
def _(world: World) -> list[Said]:
    (world.folder / "past").mkdir()
    authority = Authority(world.folder / "past")
    old = authority.server(ends=timedelta(hours=-1))
    files = ("--tls-cert", str(old.certificate), "--tls-key", str(old.key), "--client-ca", str(authority.file))
    return [world.server(*files, "--listen", "127.0.0.1:0")]


@situation("expired certificate of the server, while it runs")
def _(world: World) -> list[Said]:
    (world.folder / "short").mkdir()
    signer = Authority(world.folder / "short")
    with federation(world.folder / "short") as short:
        ends = started_before_expiry(short, signer)
        while datetime.now(UTC) <= ends:
            time.sleep(0.05)
        words = (*at(short), *world.owned(signer.host("late"), ca=signer.file))
        return [world.log("late", *words)]


@situation("a certificate of another host")
def _(world: World) -> list[Said]:
    return [world.log("yours", *world.to_tls(world.authority.host("theirs")))]


@situation("an agent outside the host of its certificate")
def _(world: World) -> list[Said]:
    """The programs cannot do that: a program of someone else's."""
    own = world.authority.host("mine")
    key, certificate = own.pair
    credentials = grpc.ssl_channel_credentials(world.authority.file.read_bytes(), key, certificate)
    with grpc.secure_channel(f"127.0.0.1:{world.tls.port}", credentials) as channel:
        call = rpc.FederationStub(channel).Fetch(pb.FetchRequest(agent="yours/1", sha256=bytes(32)), timeout=PATIENCE_S)
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    return [Said(world.masked(caught.value.details()), "fed-server, to the caller", STAYS)]


@situation("a device certificate at Operations")
def _(world: World) -> list[Said]:
    own = world.authority.host("device")
    words = ("--server", f"127.0.0.1:{world.tls.port}", *world.owned(own))
    return [world.asked("stop", "some-run", *words)]


@situation("an operator's certificate in an agent")
def _(world: World) -> list[Said]:
    return [world.log("alice", *world.to_tls(world.authority.operator("alice")))]


# ---------------------------------------------------------------------- state folders


@situation("state folder locked by another process")
def _(world: World) -> list[Said]:
    held = str(world.folder / "state-held")
    with state_folder.opened(Path(held)):
        agent = world.agent("--data", "named", "--state-dir", held)
    return [world.server("--listen", "127.0.0.1:0", "--state-dir", str(world.clear.state)), agent]


@situation("state folder on a full disk, at the start")
def _(world: World) -> list[Said]:
    with small_disk(world.folder / "disk", 1 << 20) as disk:
        fill(disk)
        flags = ("--state-dir", str(disk / "s"))
        return [world.server("--listen", "127.0.0.1:0", *flags), world.agent("--data", "named", *flags)]


@situation("state folder on a full disk, in the middle of an upload")
def _(world: World) -> list[Said]:
    """The reply stays with the agent; when there is room it is sent again, and the run goes on."""
    (world.folder / "full").mkdir()
    with small_disk(world.folder / "full" / "server", 12 << 20) as disk, federation(world.folder / "full") as full:
        full.server()
        full.operations()
        with relay(full.port, bytes_per_s=2e6) as between:
            data, text = world.data("full"), RUN.format(model=LARGE, classes='"0", "1", "2"', tag="full")
            agent = full.agent("full", data, "--tags", "full", via=between.port)
            full.submit(text, "run")
            between.wait_for_upload(600_000)
            filler = fill(disk)
            said = Said(world.reason(agent, "submit_failed"), "edge-agent log", STAYS)
            filler.unlink()
            agent.stop()  # started again, it does not wait for as long as the server asked for
            full.agent("full", data, "--tags", "full", via=between.port)
            (report,) = full.finished("run").rounds
        assert [trained.outcome for trained in report.agents] == ["merged"]
        assert "submit_again" in agent.text()
    return [said]


@situation("state folder written by a newer version")
def _(world: World) -> list[Said]:
    newer = world.folder / "newer"
    (newer / "server").mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(newer / "server" / "journal.sqlite")) as db:
        db.execute("PRAGMA user_version = 99")
    (newer / "agent").mkdir()
    (newer / "agent" / "format").write_text("99\n")
    server = world.server("--listen", "127.0.0.1:0", "--state-dir", str(newer / "server"))
    return [server, world.agent("--data", "named", "--state-dir", str(newer / "agent"))]


@situation("state folder that cannot be made")
def _(world: World) -> list[Said]:
    flags = ("--state-dir", "/dev/null/state")
    return [world.server("--listen", "127.0.0.1:0", *flags), world.agent("--data", "named", *flags)]


# ---------------------------------------------------------------------- runs


@situation("a run that no agent can serve")
def _(world: World) -> list[Said]:
    return world.impossible("small", "--learner", "numpy", model='name = "fedavg_cnn"')


@situation("data of another shape than the model's")
def _(world: World) -> list[Said]:
    return world.impossible("shape", model='name = "linear"\ninput = "7"')


@situation("a model too large for the agent's memory budget")
def _(world: World) -> list[Said]:
    return world.impossible("tiny", "--memory-budget", "1MB", model=LARGE)


@situation("no such run")
def _(world: World) -> list[Said]:
    return [world.asked("show", "nothing", of=world.tls)]


# ---------------------------------------------------------------------- the tests


def rows() -> list[tuple[str, Said]]:
    """The page's table of situations."""
    found = re.findall(r"^\| (.+?) \| `(.+?)` \| (.+?) \| (.+?) \| .+ \|$", PAGE.read_text(), re.MULTILINE)
    return [(what, Said(sentence, who, code)) for what, sentence, who, code in found]


def not_slow(what: str) -> bool:
    """Sorts those first that take long."""
    return not what.endswith(("while it runs", "of an upload"))


@pytest.fixture(scope="module")
def tried(world: World, request: pytest.FixtureRequest) -> Iterator[dict[str, "Future[list[Said]]"]]:
    """All that this session asks for, several at a time: most of their time is waiting."""
    wanted = [item.callspec.params["what"] for item in request.session.items if "tried" in item.fixturenames]
    if "PYTEST_XDIST_WORKER" in os.environ:  # it has the items of all workers, and is to try its own
        wanted = []
    with ThreadPoolExecutor(4) as pool:
        yield {what: pool.submit(SITUATIONS[what], world) for what in sorted(wanted, key=not_slow)}


@pytest.mark.slow
@pytest.mark.parametrize("what", SITUATIONS)
def test_the_sentence_and_the_exit_code_are_those_of_the_page(
    world: World, tried: dict[str, "Future[list[Said]]"], what: str
) -> None:
    got = tried[what].result() if what in tried else SITUATIONS[what](world)
    assert got == [said for row, said in rows() if row == what]
    for fleet in (world.clear, world.tls):
        assert fleet.operations().ListAgents(pb.ListAgentsRequest(), timeout=PATIENCE_S) is not None  # it has gone on


def test_every_row_of_the_page_is_tried() -> None:
    assert {what for what, _ in rows()} == set(SITUATIONS)


def test_sentences_have_one_form() -> None:
    for what, said in rows():
        assert not said.sentence.endswith("."), what
        assert said.sentence[0] not in "\"' ", what


def test_every_exit_code_is_explained_on_the_page_and_in_help() -> None:
    codes = {name: value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    section = PAGE.read_text().partition("## Exit codes")[2].partition("\n## ")[0]
    explained = {int(row[0]): row[1] for row in re.findall(r"^\| (\d+) \| .+? \| (.+?) \|$", section, re.MULTILINE)}
    assert set(codes.values()) <= set(explained)
    helps = {
        "fed-server": server_parser().format_help(),
        "edge-agent": agent_parser().format_help(),
        "fed-bench": BENCH_HELP,
    }
    told = {
        name: set(re.findall(r"(?<![\w.])(\d+)(?= |:)", text.partition("exit codes:")[2]))
        for name, text in helps.items()
    }
    for number, programs in explained.items():
        assert {name for name, numbers in told.items() if str(number) in numbers} == set(programs.split(", ")), number
    for what, said in rows():
        if said.code != STAYS:
            assert said.who.split()[0] in explained[int(said.code)], (what, said)


# ---------------------------------------------------------------------- small things


def at(fleet: Federation) -> tuple[str, ...]:
    return "--server", f"127.0.0.1:{fleet.port}"


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def started_before_expiry(fleet: Federation, signer: Authority) -> datetime:
    """Start a server whose certificate expires soon; a busy machine may need more than one try."""
    for life in (timedelta(seconds=seconds) for seconds in (3, 6, 12, 24)):
        ends, own = datetime.now(UTC) + life, signer.server(ends=life)
        pair = ("--tls-cert", str(own.certificate), "--tls-key", str(own.key))
        program = fleet.server(*pair, "--client-ca", str(signer.file))
        assert program.popen is not None
        while program.popen.poll() is None:
            if "fed-server listens on" in program.text():
                return ends
            time.sleep(0.02)
    raise AssertionError(program.text())


@contextlib.contextmanager
def another_program() -> Iterator[int]:
    """The port of a web server."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        yield web.server_address[1]
        web.shutdown()
        thread.join()


@contextlib.contextmanager
def small_disk(place: Path, n_bytes: int) -> Iterator[Path]:
    """A file system of that size."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small disk")
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={n_bytes}", "none", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no mounts here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path) -> Path:
    """A file that leaves nothing free."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    assert shutil.disk_usage(disk).free == 0
    return filler
