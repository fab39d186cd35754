"""The connection: what is said when it fails, and that it is built anew."""

import shutil
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace

import certificates
import grpc
import pytest
from fake_device import Device, work
from scripted_federation import Federation

from common import pb
from common.errors import ConfigError, LinkLost
from edge_client import presence
from edge_client.certificate import Tls, complaint
from edge_client.link import Backoff, Link, check_trust, split_address
from edge_client.presence import Presence

AUTHORITY = certificates.make("authority")
OTHER = certificates.make("other authority")
SERVER = certificates.make("localhost", AUTHORITY)
OWN = certificates.host("h", AUTHORITY)


def sentence(address: str, tls: Tls | None = None) -> str:
    """What a join that fails says."""
    link = Link(address, "h", tls)
    try:
        with pytest.raises(grpc.RpcError) as caught:
            list(link.join(iter([pb.AgentEvent(hello=pb.Hello(host="h")).SerializeToString()])))
        return link.explain(caught.value).sentence
    finally:
        link.close()


@pytest.fixture
def tls_server(tmp_path: Path):
    server = Federation(tmp_path, credentials=certificates.server_credentials(SERVER, AUTHORITY))
    yield server
    server.stop()


OWN_FAULTS = [
    ("no certificate", None, "give --tls-cert and --tls-key"),
    ("wrong authority", certificates.host("h", OTHER), "may not trust the authority that signed"),
    ("expired", certificates.host("h", AUTHORITY, days=(-3, -1)), "expired at"),
    ("not yet valid", certificates.host("h", AUTHORITY, days=(1, 3)), "set this machine's clock"),
    ("for servers", certificates.host("h", AUTHORITY, usages=[certificates.SERVER]), "not for clients"),
]


@pytest.mark.parametrize(("what", "own", "expected"), OWN_FAULTS, ids=[row[0] for row in OWN_FAULTS])
def test_own_certificate_is_named_as_the_likely_cause(tls_server, tmp_path, what, own, expected) -> None:
    said = sentence(tls_server.address, certificates.files(tmp_path / "own", AUTHORITY, own))
    assert expected in said
    assert tls_server.address in said


def test_wrong_authority_for_the_server(tls_server: Federation, tmp_path: Path) -> None:
    assert "not from the authority in" in sentence(tls_server.address, certificates.files(tmp_path / "own", OTHER, OWN))


def test_expired_server(tmp_path: Path) -> None:
    expired = certificates.make("localhost", AUTHORITY, days=(-3, -1))
    server = Federation(tmp_path, credentials=certificates.server_credentials(expired, AUTHORITY))
    said = sentence(server.address, certificates.files(tmp_path / "own", AUTHORITY, OWN))
    server.stop()
    assert "has expired" in said


def test_server_of_another_name_and_the_flag_that_allows_it(tmp_path: Path) -> None:
    named = certificates.make("fl.example.org", AUTHORITY)
    server = Federation(tmp_path, credentials=certificates.server_credentials(named, AUTHORITY))
    assert "--tls-name" in sentence(server.address, certificates.files(tmp_path / "own", AUTHORITY, OWN))
    tls = certificates.files(tmp_path / "own", AUTHORITY, OWN, server_name="fl.example.org")
    link = Link(server.address, "h", tls)
    call = link.join(iter([pb.AgentEvent(hello=pb.Hello(host="h")).SerializeToString()]))
    assert pb.ServerEvent.FromString(next(iter(call))).HasField("welcome")
    link.close()
    server.stop()


def test_tls_on_one_side_only(tls_server: Federation, server: Federation, tmp_path: Path) -> None:
    assert "if it uses TLS, give --tls-ca" in sentence(tls_server.address)
    assert "without TLS and we with it" in sentence(
        server.address, certificates.files(tmp_path / "own", AUTHORITY, OWN)
    )


def test_wrong_port() -> None:
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    assert "nothing listens at" in sentence(f"localhost:{port}")


def test_wrong_name() -> None:
    assert "no such address" in sentence("no-such-host.invalid:1")


def test_another_program_on_the_port(tmp_path: Path) -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("localhost:0")
    server.start()
    assert "no fed-server of this version" in sentence(f"localhost:{port}")
    server.stop(None)


OWN_FILES: list[tuple[str, Callable[[Tls], object], str]] = [
    ("missing", lambda tls: tls.certificate.unlink(), "cannot read"),
    ("no PEM", lambda tls: tls.certificate.write_bytes(b"x"), "not a PEM certificate"),
    ("another key", lambda tls: tls.key.write_bytes(SERVER.key_pem), "is not the key of"),
    ("another host", lambda tls: None, "is another host's"),
    ("no authority", lambda tls: tls.ca.write_bytes(b""), "holds no PEM certificate"),
]


@pytest.mark.parametrize(("what", "spoil", "expected"), OWN_FILES, ids=[row[0] for row in OWN_FILES])
def test_complaint_about_own_files(tmp_path: Path, what: str, spoil, expected: str) -> None:
    tls = certificates.files(tmp_path, AUTHORITY, OWN)
    assert complaint(tls, "h") is None
    spoil(tls)
    assert expected in (complaint(tls, "other" if what == "another host" else "h") or "")


def test_keys_that_grpc_cannot_use_are_named(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import ed25519

    own = certificates.host("h", AUTHORITY, key=ed25519.Ed25519PrivateKey.generate())
    assert "ECDSA P-256" in (complaint(certificates.files(tmp_path, AUTHORITY, own), "h") or "")


def test_new_certificate_is_used_without_a_restart(tls_server: Federation, tmp_path: Path) -> None:
    """The agent starts with a certificate that is refused; its owner puts a good one in its place."""
    tls = certificates.files(tmp_path / "own", AUTHORITY, certificates.host("h", OTHER))
    device = Device(tmp_path / "device", tls_server, tls=tls)
    with device.running():
        good = certificates.files(tmp_path / "good", AUTHORITY, OWN)
        for new, old in zip(good.files(), tls.files(), strict=True):
            shutil.copy(new, old)
        tls_server.offer(work(tls_server, 0))
        assert tls_server.reply().key.step == 0


def test_certificates_that_cannot_be_read_later_leave_the_channel_as_it_was(tmp_path: Path, server, caplog) -> None:
    tls = certificates.files(tmp_path / "own", AUTHORITY, OWN)
    link = Link(server.address, "h", tls)
    tls.ca.unlink()
    assert link.files_changed()
    link.rebuild()
    assert "channel_kept" in caplog.text
    link.close()


def test_back_off_is_full_jitter_below_a_doubling_limit() -> None:
    backoff = Backoff(first_s=1.0, most_s=8.0)
    for limit in (1.0, 2.0, 4.0, 8.0, 8.0):
        assert 0.0 <= backoff.after() <= limit
    assert Backoff().after(asked_s=7.0) >= 7.0
    waits = [Backoff(failures=30).after(is_slow=True) for _ in range(200)]
    assert max(waits) <= 120.0
    assert max(waits) > 60.0 > min(waits)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("localhost:1", ("localhost", 1)), ("[::1]:8443", ("::1", 8443)), ("10.0.0.1:65535", ("10.0.0.1", 65535))],
)
def test_addresses(text: str, expected: tuple[str, int]) -> None:
    assert split_address(text) == expected


@pytest.mark.parametrize("text", ["localhost", "::1:8443", ":8443", "h:0", "h:65536", "h:http", ""])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ConfigError, match="HOST:PORT"):
        split_address(text)


def test_nothing_leaves_the_machine_in_the_clear_unless_wanted() -> None:
    for server in ("localhost:1", "127.0.0.2:1", "[::1]:1"):
        check_trust(server, None, insecure=False)
    check_trust("10.0.0.1:1", None, insecure=True)
    with pytest.raises(ConfigError, match="--insecure"):
        check_trust("10.0.0.1:1", None, insecure=False)


class Channel:
    """One that another thread replaces just as a call begins on it."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._is_closed = False

    def unary_stream(self, *_: object) -> Callable[[pb.FetchRequest], list[bytes]]:
        threading.Thread(target=self._link.rebuild).start()
        time.sleep(0.1)
        return self._begun

    def _begun(self, _request: pb.FetchRequest) -> list[bytes]:
        if self._is_closed:
            raise ValueError("Cannot invoke RPC: Channel closed!")
        return []

    def close(self) -> None:
        self._is_closed = True


def test_a_call_that_begins_while_the_channel_is_rebuilt() -> None:
    link = Link("localhost:1", "h")
    link._channel = Channel(link)  # type: ignore[assignment]  # as far as it is used
    assert link.fetch(pb.FetchRequest()) == []
    link.close()


def test_a_call_after_the_link_was_closed_is_a_lost_link() -> None:
    link = Link("localhost:1", "h")
    link.close()
    for begin in (link.join, link.submit, lambda _: link.fetch(pb.FetchRequest())):
        with pytest.raises(LinkLost, match="the agent is stopping"):
            begin(iter(()))


def test_an_agent_that_stops_as_it_is_about_to_join_ends_without_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    link = Link("localhost:1", "h")
    there = Presence(link, pb.Hello(host="h"), lambda *_: None)

    class Queue(SimpleQueue[bytes | None]):  # made when a stream is about to be opened
        def __init__(self) -> None:
            there.leave([], "stopped", 0.0)
            link.close()

    monkeypatch.setattr(presence, "queue", SimpleNamespace(SimpleQueue=Queue))
    there.run()
