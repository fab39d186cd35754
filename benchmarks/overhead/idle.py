"""Many idle agents held by one server: memory of each, one push while the others idle, a push to all."""

import contextlib
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.overhead import memory_of
from common.errors import LinkLost, LocalFault

WAIT_S = 60.0


@dataclass(frozen=True)
class Idle:
    n_hosts: int
    kb_each: float  # resident memory of the server, growth per host, 10^3 bytes
    push_p50_s: float
    push_p99_s: float
    push_all_s: float
    join_all_s: float


@dataclass(frozen=True)
class Told:
    """One line of a crowd, or of its server; nanoseconds are of the system-wide monotonic clock."""

    name: str
    what: str
    at_ns: int


class Talker:
    """A process that is told things on stdin and tells things on stdout, one a line."""

    def __init__(self, popen: "subprocess.Popen[str]", errors: Path) -> None:
        self.popen, self.errors = popen, errors
        self.told: queue.SimpleQueue[Told | None] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def say(self, line: str) -> None:
        if self.popen.stdin is not None:
            self.popen.stdin.write(line + "\n")
            self.popen.stdin.flush()

    def next(self, what: str) -> Told:
        """The next line of that kind.

        Raises:
            LocalFault: the process has ended.
            LinkLost: none came in time.
        """
        end = time.monotonic() + WAIT_S
        while True:
            try:
                told = self.told.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise LinkLost(f"expected {what!r} within {WAIT_S:.0f} s, got nothing; see {self.errors}") from None
            if told is None:
                raise LocalFault(f"expected {what!r}, got the end of the program:\n{self.errors.read_text()[-2000:]}")
            if told.what == what:
                return told

    def _listen(self) -> None:
        for line in self.popen.stdout or ():
            name, what, number = line.split()
            self.told.put(Told(name, what, int(number)))
        self.told.put(None)


@contextlib.contextmanager
def talking(module: str, *args: str, errors: Path) -> Iterator[Talker]:
    """`python -m MODULE ARGS`, ended on leaving."""
    pipe = subprocess.PIPE
    with errors.open("w") as log:
        command = [sys.executable, "-m", module, *args]
        popen = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, text=True, start_new_session=True)
    try:
        yield Talker(popen, errors)
    finally:
        popen.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            popen.wait(10.0)
        if popen.poll() is None:
            popen.kill()
        popen.wait()
        for stream in (popen.stdin, popen.stdout):
            if stream is not None:
                stream.close()


def measure(folder: Path, *, n_hosts: int, n_pushes: int = 300) -> Idle:
    folder.mkdir(parents=True, exist_ok=True)
    state = tempfile.mkdtemp(prefix="idle-", dir=folder)
    own = ("--state-dir", state)
    with talking("benchmarks.overhead.idle_server", *own, errors=folder / "idle-server.log") as server:
        crowd = ("--server", server.next("serving").name, "--hosts", str(n_hosts), "--folder", state)
        before = memory_of.status(server.popen.pid)["VmRSS"]
        begun = time.monotonic()
        with talking("benchmarks.overhead.crowd", *crowd, errors=folder / "idle-crowd.log") as hosts:
            names = [hosts.next("joined").name for _ in range(n_hosts)]
            joined_s = time.monotonic() - begun
            after = memory_of.status(server.popen.pid)["VmRSS"]
            rng = np.random.default_rng(0)
            one = [_push(server, hosts, str(name)) for name in rng.choice(names, n_pushes)]
            all_s = _push_all(server, hosts, names)
    p50, p99 = np.quantile(one[20:], [0.5, 0.99])
    return Idle(n_hosts, (after - before) / n_hosts / 1e3, float(p50), float(p99), all_s, joined_s)


def _push(server: Talker, hosts: Talker, name: str) -> float:
    """Seconds from the call that makes an offer to its being read by the host."""
    server.say(name)
    return (hosts.next("offer-EVALUATE").at_ns - server.next("pushed").at_ns) / 1e9


def _push_all(server: Talker, hosts: Talker, names: list[str]) -> float:
    server.say(" ".join(names))
    first = min(server.next("pushed").at_ns for _ in names)
    last = max(hosts.next("offer-EVALUATE").at_ns for _ in names)
    return (last - first) / 1e9
