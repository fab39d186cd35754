"""The connection to the server: one channel, its keepalive, and when to build it anew.

A channel can sit half-open for hours after its peer is gone, and certificates are read when it is built. So it is
rebuilt after repeated failure and when its files have changed, and calls go through whichever channel is current.
"""

import ipaddress
import logging
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import grpc

from common import pb
from common.errors import EXIT_IDENTITY, ConfigError, LinkLost
from edge_client import certificate
from edge_client.certificate import Tls
from edge_client.trouble import Trouble, trouble

log = logging.getLogger(__name__)

LARGEST_MESSAGE_BYTES = 8 << 20  # everything big is in parts of at most 1 MiB; the rest is for long records
OPTIONS = (
    # 30 s is under the idle limit of common routers; the server must allow half of it, or answers "too many pings"
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", LARGEST_MESSAGE_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.use_local_subchannel_pool", 1),  # else a rebuilt channel would share the broken connection
)


SERVICE = "/edgefed.v1.Federation"


class Call(Protocol):
    """A stream of answers that can be ended from any thread."""

    def __iter__(self) -> Iterator[bytes]: ...
    def cancel(self) -> bool: ...


@dataclass
class Backoff:
    """Full jitter: a random time below a limit that doubles with each failure."""

    first_s: float = 0.5
    most_s: float = 30.0
    slow_first_s: float = 10.0
    slow_most_s: float = 120.0
    failures: int = 0

    def after(self, *, is_slow: bool = False, asked_s: float = 0.0) -> float:
        """Seconds to wait after one more failure; at least what the server asked for."""
        first, most = (self.slow_first_s, self.slow_most_s) if is_slow else (self.first_s, self.most_s)
        limit = min(most, first * 2.0 ** min(self.failures, 16))
        self.failures += 1
        return asked_s + random.uniform(0.0, limit)

    def reset(self) -> None:
        self.failures = 0


class Link:
    """The channel to one server, for one host name. Calls may come from any thread; bytes in, bytes out.

    Every call may raise LinkLost, once the link is closed.
    """

    def __init__(self, server: str, host: str, tls: Tls | None = None) -> None:
        self.server, self.host, self.tls = server, host, tls
        self._lock = threading.Lock()
        self._stamp = self._files()
        self._channel = self._build()
        self._is_closed = False

    def join(self, events: Iterator[bytes]) -> Call:
        with self._open() as channel:
            return channel.stream_stream(f"{SERVICE}/Join", _same, _same)(events)

    def fetch(self, request: pb.FetchRequest) -> Call:
        with self._open() as channel:
            return channel.unary_stream(f"{SERVICE}/Fetch", pb.FetchRequest.SerializeToString, _same)(request)

    def submit(self, parts: Iterator[bytes]) -> Call:
        with self._open() as channel:
            return channel.stream_stream(f"{SERVICE}/Submit", _same, _same)(parts)

    def rebuild(self) -> None:
        """A new channel, with certificates as they are now; the old one stays when they cannot be read."""
        stamp = self._files()
        try:
            channel = self._build()
        except ConfigError as fault:
            log.warning("channel_kept server=%s reason=%s", self.server, fault)
            return
        with self._lock:
            if self._is_closed:
                channel.close()
                return
            old, self._channel, self._stamp = self._channel, channel, stamp
        old.close()
        log.debug("channel_rebuilt server=%s", self.server)

    def files_changed(self) -> bool:
        return self._files() != self._stamp

    def explain(self, error: grpc.RpcError) -> Trouble:
        return trouble(error, server=self.server, tls=self.tls, host=self.host)

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            self._channel.close()

    @contextmanager
    def _open(self) -> Iterator[grpc.Channel]:
        """The channel, which stays open until the call has begun: one that is closed ends its calls, and refuses more.

        Raises:
            LinkLost: the link was closed.
        """
        with self._lock:
            if self._is_closed:
                raise LinkLost("the agent is stopping")
            yield self._channel

    def _build(self) -> grpc.Channel:
        return channel(self.server, self.tls)

    def _files(self) -> tuple[tuple[Path, int], ...]:
        files = () if self.tls is None else self.tls.files()
        return tuple((path, path.stat().st_mtime_ns) for path in files if path.exists())


def _same(data: bytes) -> bytes:
    return data


def channel(server: str, tls: Tls | None) -> grpc.Channel:
    """A new channel; nothing is connected before the first call.

    Raises:
        ConfigError: a certificate or key file cannot be read.
    """
    options: list[tuple[str, int | str]] = list(OPTIONS)
    if is_loopback(server):
        options.append(("grpc.enable_http_proxy", 0))
    if tls is None:
        return grpc.insecure_channel(server, options=options)
    if tls.server_name:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    ca = certificate.read(tls.ca)
    own = None if tls.certificate is None else certificate.read(tls.certificate)
    key = None if tls.key is None else certificate.read(tls.key)
    return grpc.secure_channel(server, grpc.ssl_channel_credentials(ca, key, own), options=options)


def split_address(server: str) -> tuple[str, int]:
    """Host and port of HOST:PORT, [IPV6]:PORT.

    Raises:
        ConfigError: it is neither.
    """
    name, colon, port = server.rpartition(":")
    bracketed = name.startswith("[") and name.endswith("]")
    if not (colon and name and port.isdigit() and 0 < int(port) < 65536) or (":" in name and not bracketed):
        raise ConfigError(f"--server takes HOST:PORT, and an IPv6 address in brackets, [::1]:PORT: got {server!r}")
    return name.strip("[]"), int(port)


def is_loopback(server: str) -> bool:
    name, _ = split_address(server)
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def check_trust(server: str, tls: Tls | None, *, insecure: bool) -> None:
    """That what leaves this machine is encrypted, or its owner said that it need not be.

    Raises:
        ConfigError: neither.
    """
    if tls is None and not insecure and not is_loopback(server):
        raise ConfigError(
            f"{server} is another machine: give --tls-ca, --tls-cert and --tls-key, or --insecure on a network that"
            " you trust",
            exit_code=EXIT_IDENTITY,
        )
