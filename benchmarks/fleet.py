"""A federation on this machine: one real fed-server process and real edge-agent processes on loopback.

Everything that is started here is ended here, by its process id, or by itself when this program is killed; logs stay
in the output folder, and the last lines of the one that failed are part of the error.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from benchmarks import ONE_THREAD
from common import pb
from common.errors import EXIT_STATE, ConfigError, LinkLost, LocalFault
from proto import federation_pb2_grpc as rpc
from server.operations import SOCKET, SOCKET_PATH_BYTES

LARGE_MESSAGES = (("grpc.max_receive_message_length", 1 << 30), ("grpc.max_send_message_length", 1 << 30))
JOIN_S = 120.0  # a small board loads its libraries slowly; nobody waits longer for a process on one machine
STOP_S = 15.0
LOG_LINES = 12
MARK = "mark"
SERVER, AGENT = ("-m", "server"), ("-m", "edge_client")


@dataclass
class Process:
    """A process that this program started, and where its output goes."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path

    def last_lines(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        return "\n".join(f"  {self.name} | {line}" for line in lines) or f"  {self.name} | (wrote nothing)"

    def check(self) -> None:
        """Raise a LocalFault with its last lines when it has ended."""
        code = self.popen.poll()
        if code is not None:
            raise LocalFault(f"{self.name} ended with code {code}; its last lines ({self.log}):\n{self.last_lines()}")

    def stop(self) -> None:
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
            try:
                self.popen.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.popen.kill()
        self.popen.wait()


@dataclass
class Federation:
    """A running server, its agents, and the operator's view of it."""

    address: str
    state: Path
    operations: rpc.OperationsStub
    server: Process
    agents: list[Process] = field(default_factory=list)

    def check(self) -> None:
        for process in (self.server, *self.agents):
            process.check()

    def forget(self) -> None:
        """Whatever breaks this fleet off, the next one begins anew."""
        (self.state / MARK).unlink(missing_ok=True)

    def online(self) -> list[pb.AgentSummary]:
        return [agent for agent in self.operations.ListAgents(pb.ListAgentsRequest()).agents if agent.online]

    def wait_for(self, n_agents: int, timeout_s: float = JOIN_S) -> None:
        """Until so many agents are connected.

        Raises:
            LocalFault: one of the processes ended.
            LinkLost: not all came in time.
        """
        end = time.monotonic() + timeout_s
        while (there := len(self.online())) < n_agents:
            self.check()
            if time.monotonic() > end:
                told = "\n".join(process.last_lines() for process in self.agents)
                raise LinkLost(f"only {there} of {n_agents} agents joined within {timeout_s:.0f} s\n{told}")
            time.sleep(0.05)


@contextlib.contextmanager
def server(
    logs: Path,
    *,
    listen: str = "",
    flags: tuple[str, ...] = ("--insecure",),
    program: tuple[str, ...] = SERVER,
    mark: str = "",
) -> Iterator[Federation]:
    """A fed-server process with a state folder of its own, ready to be joined; it is ended on leaving.

    The state is fresh, and gone afterwards. With a mark it stays when the fleet is broken off, and the next one of the
    same mark goes on with it: with the server's runs and its agents' memory. (Not where its path is too long for a
    socket: such a state lies in a temporary folder.)
    """
    logs.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        state = stack.enter_context(_state_folder(logs, mark))
        port_file = state / "address"
        port_file.unlink(missing_ok=True)
        command = [*program, "serve", "--listen", listen or "127.0.0.1:0", "--state-dir", str(state)]
        process = stack.enter_context(started("fed-server", [*command, "--port-file", str(port_file), *flags], logs))
        address = _announced(process, port_file)
        channel = stack.enter_context(grpc.insecure_channel(f"unix:{state / SOCKET}", options=LARGE_MESSAGES))
        yield Federation(address, state, rpc.OperationsStub(channel), process)


@contextlib.contextmanager
def agents(
    federation: Federation,
    logs: Path,
    n_agents: int,
    *,
    n_processes: int,
    flags: tuple[str, ...] = ("--data", "named"),
    program: tuple[str, ...] = AGENT,
) -> Iterator[None]:
    """So many agents, joined: one process each, or one host whose resident children carry many."""
    before = len(federation.online())
    with contextlib.ExitStack() as stack:
        for i, extra in enumerate(shares(n_agents, n_processes)):
            name = f"agent-{i:02d}"
            command = [*program, "--server", federation.address, "--name", name, *flags, *extra]
            command += ["--state-dir", str(federation.state / "agents" / name)]
            federation.agents.append(stack.enter_context(started(name, command, logs)))
        federation.wait_for(before + n_agents)
        try:
            yield
        finally:
            _tell_to_stop(federation.agents)
            federation.agents.clear()


@contextlib.contextmanager
def started(name: str, command: list[str], logs: Path, env: Mapping[str, str] | None = None) -> Iterator[Process]:
    """`python COMMAND` with its output in a log; it is ended on leaving, and on Linux when we are killed."""
    path = logs / f"{name}.log"
    with path.open("wb") as log:
        popen = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.leash", str(os.getpid()), *command],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **ONE_THREAD, **(env or {})},
            start_new_session=True,  # Ctrl-C in the terminal is for us; we end the fleet in order
        )
    process = Process(name, popen, path)
    try:
        yield process
    finally:
        process.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM ends this program the way Ctrl-C does, so that what it started is ended too."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def shares(n_agents: int, n_processes: int) -> list[tuple[str, ...]]:
    """Flags of each agent process: the agents spread evenly, by name when there is one each."""
    if n_processes >= n_agents:
        return [()] * n_agents
    return [("--agents", str(n_agents), "--workers", str(n_processes))]


def _tell_to_stop(processes: list[Process]) -> None:
    """SIGTERM to all at once, so that stopping takes as long as the slowest and not as all together."""
    for process in processes:
        if process.popen.poll() is None:
            process.popen.send_signal(signal.SIGTERM)


def _announced(process: Process, port_file: Path) -> str:
    """The address that the server has taken, once it serves."""
    end = time.monotonic() + JOIN_S
    while not port_file.exists():
        code = process.popen.poll()
        if code is not None:
            raise ConfigError(f"fed-server did not start:\n{process.last_lines()}", exit_code=code)
        if time.monotonic() > end:
            raise LinkLost(f"fed-server does not serve after {JOIN_S:.0f} s\n{process.last_lines()}")
        time.sleep(0.02)
    return port_file.read_text().strip()


def _wait_until_free(folder: Path) -> None:
    """A fleet whose fed-bench was killed is still ending: its server and its agents have their folders until then."""
    end = time.monotonic() + JOIN_S
    for lock in (folder / "lock", *(folder / "agents").glob("*/lock")):
        while holder := _holder(lock):
            if time.monotonic() > end:
                raise ConfigError(
                    f"state folder {lock.parent} is in use by another program; stop it, or give another --out: process"
                    f" {holder}",
                    exit_code=EXIT_STATE,
                )
            time.sleep(0.1)


def _holder(lock: Path) -> str:
    """The process that has locked a state folder; empty when none has."""
    try:
        with lock.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read() or "unknown"
    except FileNotFoundError:
        pass
    return ""


@contextlib.contextmanager
def _state_folder(logs: Path, mark: str) -> Iterator[Path]:
    """Beside the results, on the disk that they are measured on; elsewhere when a socket's path would be too long."""
    beside = (logs / "state").resolve()
    short = len(os.fsencode(beside / SOCKET)) <= SOCKET_PATH_BYTES
    folder = beside if short else Path(tempfile.mkdtemp(prefix="edgefed-"))
    marked = folder / MARK
    _wait_until_free(folder)
    if short and not (mark and marked.exists() and marked.read_text() == mark):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        marked.write_text(mark)
    stays = False
    try:
        yield folder
    except BaseException:
        stays = short and bool(mark)
        raise
    finally:
        if not stays:
            shutil.rmtree(folder, ignore_errors=True)
