"""Who is calling: a host or an operator, by certificate.

A certificate names its owner in a URI SAN, `edgefed:host/H` or `edgefed:operator/NAME`. A host owns the agents `H`
and `H/…`. An open connection outlives the expiry of its certificate, so both are looked at in every call.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from common.errors import RemoteFault

HOST_URI = "edgefed:host/"
OPERATOR_URI = "edgefed:operator/"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Caller:
    """The owner of a connection; both None when the server runs without TLS, where a host is what it says it is."""

    host: str | None = None
    operator: str | None = None
    until: datetime | None = None  # expiry of the certificate


def caller(auth_context: Mapping[str, Iterable[bytes]], now: datetime | None = None) -> Caller:
    """Whose certificate the peer has shown.

    Raises:
        RemoteFault: the certificate has expired, is not yet valid, or names neither a host nor an operator.
    """
    certificates = list(auth_context.get("x509_pem_cert", ()))
    if not certificates:
        return Caller()
    begins, ends = _validity(certificates[0])
    now = datetime.now(UTC) if now is None else now
    if now > ends:
        raise RemoteFault(f"this certificate expired at {ends.isoformat()}; install a new one and connect again")
    if now < begins:
        raise RemoteFault(f"this certificate is valid from {begins.isoformat()} only; look at the clocks")
    uris = [uri.decode("utf-8", "replace") for uri in auth_context.get("peer_uri", ())]
    hosts = {uri.removeprefix(HOST_URI) for uri in uris if uri.startswith(HOST_URI)}
    operators = {uri.removeprefix(OPERATOR_URI) for uri in uris if uri.startswith(OPERATOR_URI)}
    if len(hosts) + len(operators) != 1:
        raise RemoteFault(
            "this certificate does not say whose it is: expected one URI SAN edgefed:host/NAME or"
            f" edgefed:operator/NAME, got {', '.join(uris) or 'none'}"
        )
    return Caller(host=next(iter(hosts), None), operator=next(iter(operators), None), until=ends)


def check_host(who: Caller, host: str) -> None:
    """That the caller is this host.

    Raises:
        RemoteFault: it is another one, or the name is not one that a host may have.
    """
    if not NAME.fullmatch(host):
        raise RemoteFault(f"a host's name is 1 to 64 letters, digits, dots, dashes, underscores; got {host[:80]!r}")
    if who.operator is not None:
        raise RemoteFault(
            f"an operator's certificate cannot join as a device; give it a host's: got operator/{who.operator}"
        )
    if who.host is not None and who.host != host:
        raise RemoteFault(
            f"this certificate belongs to another host; start edge-agent with --name {who.host}, or with a certificate"
            f" of its own: expected {who.host}, got {host}"
        )


def check_agent(host: str, agent: str) -> None:
    """That the agent belongs to the host: `H`, or `H/…`.

    Raises:
        RemoteFault: it does not, or its name is not one that an agent may have.
    """
    first, *rest = agent.split("/")
    if first != host:
        raise RemoteFault(f"agent {agent[:80]!r} does not belong to this host: expected {host} or {host}/…")
    if len(agent) > 200 or not all(NAME.fullmatch(segment) for segment in rest):
        raise RemoteFault(
            f"host {host}: an agent's name is the host's, then segments of letters, digits, dots, dashes, underscores"
            f" after slashes, 200 characters at most; got {agent[:80]!r}"
        )


def check_owner(who: Caller, agent: str) -> str:
    """That the caller may act for the agent; its host.

    Raises:
        RemoteFault: it may not.
    """
    host = agent.split("/", 1)[0]
    check_host(who, host)
    check_agent(host, agent)
    return host


def check_operator(who: Caller) -> str:
    """That the caller is an operator; its name.

    Raises:
        RemoteFault: a device, or nobody known.
    """
    if who.operator is None:
        raise RemoteFault(
            "operations need an operator's certificate (URI SAN edgefed:operator/NAME) or the Unix socket in the"
            f" state folder; got {'host/' + who.host if who.host else 'no certificate'}"
        )
    return who.operator


@lru_cache(maxsize=4096)
def _validity(certificate_pem: bytes) -> tuple[datetime, datetime]:
    from cryptography import x509  # 10 MB, and only servers with TLS need it

    certificate = x509.load_pem_x509_certificate(certificate_pem)
    return certificate.not_valid_before_utc, certificate.not_valid_after_utc
