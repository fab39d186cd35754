"""The bare figures: a gRPC ping, streams of parts with and without durability, and the disk's own fsync."""

import contextlib
import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc

from benchmarks import fleet
from benchmarks.overhead.bare_server import SERVICE
from edge_client.link import OPTIONS

REPEATS = 5  # of each stream, in turns; the median counts


@dataclass(frozen=True)
class Streams:
    """Seconds of one transfer, medians: nothing done with the bytes, and hashed, written and made durable."""

    part_bytes: int
    total_bytes: int
    up_s: float
    up_durable_s: float
    down_s: float
    down_durable_s: float


@contextlib.contextmanager
def served(logs: Path) -> Iterator[grpc.Channel]:
    """A channel with an agent's options to a bare server process, both ended on leaving."""
    logs.mkdir(parents=True, exist_ok=True)
    address = f"127.0.0.1:{fleet.free_port()}"
    command = ["-m", "benchmarks.overhead.bare_server", "--listen", address, "--folder", str(logs)]
    with fleet.started("bare-server", command, logs) as process:
        options = [*OPTIONS, ("grpc.enable_http_proxy", 0)]
        with grpc.insecure_channel(address, options=options) as channel:
            try:
                grpc.channel_ready_future(channel).result(timeout=30)
            except grpc.FutureTimeoutError:
                process.check()
                raise
            yield channel


def ping_p50_s(channel: grpc.Channel, n: int = 500) -> float:
    call = channel.unary_unary(f"/{SERVICE}/Ping", None, None)
    for _ in range(20):
        call(b"x")
    return statistics.median(_timed(lambda: call(b"x")) for _ in range(n))


def fsync_p50_s(folder: Path, n: int = 50) -> float:
    """Of 4 KiB appended to one file, as a journal does."""
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:

        def once() -> None:
            file.write(bytes(4096))
            os.fsync(file.fileno())

        once()
        return statistics.median(_timed(once) for _ in range(n))


def streams(channel: grpc.Channel, folder: Path, *, part_bytes: int, total_bytes: int) -> Streams:
    kinds: dict[str, Callable[[], object]] = {
        "up_s": lambda: _up(channel, "Up", part_bytes, total_bytes),
        "up_durable_s": lambda: _up(channel, "UpDurable", part_bytes, total_bytes),
        "down_s": lambda: _down(channel, part_bytes, total_bytes),
        "down_durable_s": lambda: _down_durable(channel, folder, part_bytes, total_bytes),
    }
    times: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(REPEATS):
        for name, once in kinds.items():
            times[name].append(_timed(once))
    return Streams(part_bytes, total_bytes, **{name: statistics.median(values) for name, values in times.items()})


def _up(channel: grpc.Channel, method: str, part_bytes: int, total_bytes: int) -> object:
    part = bytes(part_bytes)
    parts = (part for _ in range(0, total_bytes, part_bytes))
    return channel.stream_unary(f"/{SERVICE}/{method}", None, None)(parts)


def _parts_down(channel: grpc.Channel, part_bytes: int, total_bytes: int) -> Iterable[bytes]:
    return channel.unary_stream(f"/{SERVICE}/Down", None, None)(b"%d %d" % (total_bytes, part_bytes))


def _down(channel: grpc.Channel, part_bytes: int, total_bytes: int) -> object:
    return sum(len(part) for part in _parts_down(channel, part_bytes, total_bytes))


def _down_durable(channel: grpc.Channel, folder: Path, part_bytes: int, total_bytes: int) -> object:
    digest = hashlib.sha256()
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for part in _parts_down(channel, part_bytes, total_bytes):
            digest.update(part)
            file.write(part)
        os.fsync(file.fileno())
    return digest.digest()


def _timed(once: Callable[[], object]) -> float:
    begun = time.perf_counter()
    once()
    return time.perf_counter() - begun
