"""Real fed-server and edge-agent processes for tests: started here, killed and started again here, by process id."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np

from benchmarks import ONE_THREAD
from benchmarks.fleet import free_port
from common import pb
from proto import federation_pb2_grpc as rpc

PATIENCE_S = 60.0
OVER = ("done", "failed", "stopped")


@dataclass
class Program:
    """One process, its command kept so that it can be started again on the same folders."""

    command: list[str]
    log: Path
    popen: "subprocess.Popen[bytes] | None" = None

    def start(self) -> "Program":
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                self.command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env={**os.environ, **ONE_THREAD}
            )
        return self

    @property
    def pid(self) -> int:
        assert self.popen is not None
        return self.popen.pid

    def kill(self) -> None:
        """As a power cut would: no handler runs."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        return self._end(signal.SIGTERM)

    def text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def _end(self, number: int) -> int:
        if self.popen is None:
            return 0
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        return self.popen.wait(PATIENCE_S)


@dataclass
class Federation:
    """A server and its agents under one folder."""

    folder: Path
    port: int = field(default_factory=free_port)
    prefix: tuple[str, ...] = ()  # before every command, for example `ip netns exec NAME`
    programs: dict[str, Program] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        return self.folder / "server"

    def server(self, *flags: str, listen: str = "") -> Program:
        flags = flags or ("--insecure",)
        address = listen or f"127.0.0.1:{self.port}"
        return self._program("server", "server", "serve", "--listen", address, "--state-dir", str(self.state), *flags)

    def agent(self, name: str, data: Path | str, *flags: str, address: str = "", via: int = 0) -> Program:
        target = address or f"127.0.0.1:{via or self.port}"
        common = ("--server", target, "--data", str(data), "--name", name)
        return self._program(name, "edge_client", *common, "--state-dir", str(self.folder / name), *flags)

    def operations(self) -> rpc.OperationsStub:
        channel = grpc.insecure_channel(f"unix:{self.state / 'operations.sock'}")
        grpc.channel_ready_future(channel).result(PATIENCE_S)
        return rpc.OperationsStub(channel)

    def submit(self, run_toml: str, name: str, **files: bytes) -> None:
        request = pb.SubmitRunRequest(run_toml=run_toml, name=name, files=files)
        self.operations().SubmitRun(request, timeout=PATIENCE_S, wait_for_ready=True)

    def show(self, run: str) -> pb.RunDetail:
        request = pb.ShowRunRequest(run=run)  # waits: channels share their connection, and a killed server's is broken
        detail: pb.RunDetail = self.operations().ShowRun(request, timeout=PATIENCE_S, wait_for_ready=True)
        return detail

    def wait(self, run: str, until: Callable[[pb.RunDetail], bool] = lambda _: False) -> pb.RunDetail:
        """Until the run is over, or something is true of it; fails with what the programs wrote."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            detail = self.show(run)
            if detail.summary.status in OVER or until(detail):
                return detail
            time.sleep(0.02)
        raise AssertionError(f"run {run} did not end: {detail.summary}\n{self.told()}")

    def finished(self, run: str) -> pb.RunDetail:
        detail = self.wait(run)
        assert detail.summary.status == "done", f"{detail.summary}\n{self.told()}"
        return detail

    def told(self) -> str:
        return "\n".join(f"--- {name}\n{program.text()[-3000:]}" for name, program in self.programs.items())

    def _program(self, name: str, module: str, *arguments: str) -> Program:
        command = [*self.prefix, sys.executable, "-m", module, *arguments]
        return self.programs.setdefault(name, Program(command, self.folder / f"{name}.log")).start()


@contextlib.contextmanager
def federation(folder: Path) -> Iterator[Federation]:
    """Everything that it starts is ended on leaving: agents first."""
    running = Federation(folder)
    try:
        yield running
    finally:
        for name in sorted(running.programs, key=lambda name: name == "server"):
            running.programs[name].stop()


def blobs_of_points(n: int, seed: int, *, n_classes: int = 3, dim: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Samples around one centre per class, centres the same for every seed; float32 and int64."""
    centres = np.random.default_rng(0).normal(size=(n_classes, dim)) * 2
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n)
    return (centres[labels] + rng.normal(size=(n, dim))).astype(np.float32), labels


def write_data(path: Path, n: int, seed: int, *, n_test: int = 20) -> Path:
    x, y = blobs_of_points(n + n_test, seed)
    np.savez(path, x=x[:n], y=y[:n], x_test=x[n:], y_test=y[n:])
    return path
