"""`edge-agent doctor`: one line for each thing that an agent needs, and what to do about those that fail."""

import contextlib
import json
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from common.errors import EXIT_ADDRESS, EXIT_DATA, EXIT_IDENTITY, EXIT_LINK, EXIT_LOCAL, EXIT_STATE, FederationError
from common.files import write_durably
from edge_client import certificate, learners
from edge_client.certificate import Tls
from edge_client.data.agent_data import shown
from edge_client.data.opening import open_path
from edge_client.job import AgentConfig
from edge_client.link import channel, split_address
from edge_client.setup import Wishes, agents_of, check_learner, host_name
from edge_client.trouble import trouble

ANSWER_S = 10.0
LEAST_DISK_BYTES = 10**9
LEAST_MEMORY_BYTES = 256 * 10**6
BUILT_AFTER = datetime(2026, 1, 1, tzinfo=UTC)  # a clock before this one is wrong
SYNCHRONISED = Path("/run/systemd/timesync/synchronized")
TIMESYNC = Path("/run/systemd/timesync")


@dataclass(frozen=True)
class Finding:
    """`code` is the exit code when this fails, 0 when it is well."""

    about: str
    text: str
    code: int = 0


class _Wrong(Exception):
    """What is wrong and what to do, with the exit code that says so."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


def examine(wishes: Wishes, *, server: str, tls: Tls | None, state: Path) -> Iterator[Finding]:
    """Our own certificate comes before the connection: a server that refuses it does not say so."""
    host = host_name(wishes.name)
    yield _finding("clock", _clock)
    yield _finding("certificate", lambda: _certificate(tls, host))
    yield _finding("connection", lambda: _connection(server, tls, host))
    yield _finding("disk", lambda: _disk(state))
    yield _finding("data set", lambda: _data(wishes, host))
    yield _finding("learner", lambda: _learner(wishes.learner))
    yield _finding("memory", lambda: _memory(wishes.memory_budget_bytes))


def tell(findings: Iterator[Finding], *, as_json: bool, write: Callable[[str], None]) -> int:
    """Writes each finding as it comes; the exit code of the first that failed."""
    code = 0
    found: list[Finding] = []
    for finding in findings:
        found.append(finding)
        code = code or finding.code
        if not as_json:
            write(f"{'ok  ' if finding.code == 0 else 'FAIL'}  {finding.about:<11}  {finding.text}")
    if as_json:
        write(json.dumps({"findings": [asdict(finding) for finding in found], "exit_code": code}))
    return code


def _finding(about: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(about, look())
    except _Wrong as wrong:
        return Finding(about, str(wrong), wrong.code)
    except FederationError as fault:
        return Finding(about, str(fault), fault.exit_code)


def _clock() -> str:
    now = datetime.now(UTC)
    if now < BUILT_AFTER:
        raise _Wrong(f"set this machine's clock, or let it synchronise: it says {now.isoformat()}", EXIT_LOCAL)
    if TIMESYNC.exists() and not SYNCHRONISED.exists():
        return f"{now.isoformat(timespec='seconds')}, not yet synchronised"
    return now.isoformat(timespec="seconds")


def _certificate(tls: Tls | None, host: str) -> str:
    if tls is None:
        return "none given: no TLS"
    ours = certificate.complaint(tls, host)
    if ours is not None:
        raise _Wrong(ours, EXIT_IDENTITY)
    return f"{tls.certificate} is valid, for clients, and for host {host}"


def _connection(server: str, tls: Tls | None, host: str) -> str:
    _reachable(server)
    started = time.monotonic()
    with contextlib.closing(channel(server, tls)) as to_server:
        stub = health_pb2_grpc.HealthStub(to_server)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=ANSWER_S)
        except grpc.RpcError as error:
            code = EXIT_IDENTITY if tls is not None or "closed" in (error.details() or "") else EXIT_LINK
            raise _Wrong(trouble(error, server=server, tls=tls, host=host).sentence, code) from error
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        raise _Wrong(f"{server} is there but ends or starts just now; try again in a minute", EXIT_LINK)
    return f"{server} serves, {'with' if tls else 'without'} TLS, in {(time.monotonic() - started) * 1000:.0f} ms"


def _reachable(server: str) -> None:
    """By every address of the name: a server that listens on IPv4 alone is a common surprise."""
    name, port = split_address(server)
    try:
        places = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except socket.gaierror as fault:
        raise _Wrong(
            f"no such address: {name}; check the name in --server and this machine's DNS: {fault.strerror}",
            EXIT_ADDRESS,
        ) from fault
    failed = []
    for family, kind, protocol, _, address in places:
        with socket.socket(family, kind, protocol) as probe:
            probe.settimeout(ANSWER_S)
            try:
                probe.connect(address)
            except OSError as fault:
                failed.append(f"{address[0]} ({fault.strerror or fault})")
            else:
                return
    raise _Wrong(
        f"nothing listens at {server}; check the address in --server, that fed-server runs there and listens on this"
        f" port and kind of address (IPv4 or IPv6), and firewalls between: tried {', '.join(failed)}",
        EXIT_LINK,
    )


def _disk(state: Path) -> str:
    there = next(folder for folder in (state, *state.absolute().parents) if folder.exists())
    if not os.access(there, os.W_OK):
        raise _Wrong(f"{there} may not be written by this user; give another with --state-dir", EXIT_STATE)
    free = shutil.disk_usage(there).free
    if free < LEAST_DISK_BYTES:
        text = f"free some space for {state}: expected {LEAST_DISK_BYTES / 1e9:.1f} GB, got {free / 1e9:.2f} GB"
        raise _Wrong(text, EXIT_STATE)
    trial = there / f".doctor-{secrets.token_hex(4)}"
    started = time.monotonic()
    try:
        write_durably(trial, [b"trial"])
    except OSError as fault:
        raise _Wrong(
            f"{there} cannot be written: {fault.strerror}; give another with --state-dir", EXIT_STATE
        ) from fault
    finally:
        trial.unlink(missing_ok=True)
    return f"{state}, {free / 1e9:.1f} GB free, a durable write takes {(time.monotonic() - started) * 1000:.0f} ms"


def _data(wishes: Wishes, host: str) -> str:
    return "; ".join(_described(agent) for agent in agents_of(wishes, host))


def _described(agent: AgentConfig) -> str:
    """With names of classes: a folder one level too high has others than one thinks."""
    if agent.data is None:
        return f"{agent.name}: comes with the run"
    data = open_path(Path(agent.data), agent.name)
    n_extra = 0 if data.extra is None else len(data.extra)
    if len(data.train) + n_extra == 0:
        raise _Wrong(f"{agent.name}: {data.name} has nothing to train on; look at --data", EXIT_DATA)
    return (
        f"{agent.name}: {data.name}, {len(data.classes)} classes ({shown(data.classes, 5)}), {len(data.train)} to"
        f" train, {len(data.test)} to test, {n_extra} without labels"
    )


def _learner(preference: str) -> str:
    check_learner(preference)
    return f"{preference} (here: {', '.join(learners.available())})"


def _memory(budget: int | None) -> str:
    free = psutil.virtual_memory().available
    wanted = LEAST_MEMORY_BYTES if budget is None else budget
    if free < wanted:
        text = f"end other programs or lower --memory-budget: expected {wanted / 1e6:.0f} MB, got {free / 1e6:.0f} MB"
        raise _Wrong(text, EXIT_LOCAL)
    return f"{free / 1e6:.0f} MB free{'' if budget is None else f', {budget / 1e6:.0f} MB to be used by a task'}"
