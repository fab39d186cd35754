"""What a failed call means, as one clear sentence, and how long to stay away."""

from dataclasses import dataclass
from typing import Any

import grpc

from edge_client import certificate
from edge_client.certificate import Tls

# Trying again soon cannot help: someone has to change something first. The agent stays, and asks again slowly.
SLOW = frozenset(
    {
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INVALID_ARGUMENT,
    }
)
LONGEST_ASKED_S = 3600.0  # a server may send us away, but not for ever


@dataclass(frozen=True)
class Trouble:
    sentence: str
    code: grpc.StatusCode
    is_slow: bool = False
    retry_after_s: float = 0.0  # what the server asked for


def trouble(error: grpc.RpcError, *, server: str, tls: Tls | None, host: str) -> Trouble:
    code, details = error.code(), error.details() or ""
    sentence = _sentence(code, details, server, tls, host)
    return Trouble(sentence, code, code in SLOW, _retry_after(error))


def _sentence(code: grpc.StatusCode, details: str, server: str, tls: Tls | None, host: str) -> str:
    if code is grpc.StatusCode.UNAVAILABLE:
        return _unreachable(details, server, tls, host)
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return f"{server} answers, but it is no fed-server of this version; check the port in --server: {details}"
    if code is grpc.StatusCode.UNAUTHENTICATED:
        return f"{server} does not accept our identity; look at --tls-cert and --tls-key: {details}"
    return f"{server} answered {code.name}: {details or 'no reason given'}"


def _unreachable(details: str, server: str, tls: Tls | None, host: str) -> str:
    if "Connection refused" in details:
        return (
            f"nothing listens at {server}; check the address in --server, and that fed-server runs there and listens on"
            " this port and kind of address (IPv4 or IPv6)"
        )
    if "lookup" in details or "resolving" in details or "DNS" in details:
        return f"no such address: {server}; check the name in --server and this machine's DNS"
    if "WRONG_VERSION_NUMBER" in details:
        return f"{server} speaks without TLS and we with it; start fed-server with --tls-cert, or leave --tls-ca away"
    if "certificate has expired" in details:
        return f"the certificate of {server} has expired, or this machine's clock is wrong; renew it on the server"
    if "not yet valid" in details:
        return f"the certificate of {server} is not valid yet; set this machine's clock"
    # the second is what an authority leads to that was made anew under the same name
    is_unknown = "CERTIFICATE_VERIFY_FAILED" in details or "certificate signature failure" in details
    if is_unknown and tls is not None:
        return f"the certificate of {server} is not from the authority in {tls.ca}; give that server's with --tls-ca"
    if "Hostname Verification" in details:
        return f"the certificate of {server} is for another name; give the name that it has with --tls-name"
    if "Failed parsing HTTP/2" in details or "http1" in details.lower():
        return f"something that is no fed-server listens at {server}; check the port in --server"
    if "Socket closed" in details or "Connection reset" in details or "handshake" in details:
        return _closed(details, server, tls, host)
    return f"{server} cannot be reached: {details or 'no reason given'}"


def _closed(details: str, server: str, tls: Tls | None, host: str) -> str:
    """The connection broke without a word; a refused certificate looks just like that."""
    if "connect to all addresses" not in details:  # it had been open
        return f"{server} has closed the connection"
    if tls is None:
        return f"{server} closed the connection at once; if it uses TLS, give --tls-ca, --tls-cert and --tls-key"
    ours = certificate.complaint(tls, host)
    if ours is not None:
        return f"{server} closed the connection at once, and the likely cause is here: {ours}"
    return f"{server} closed the connection at once; it may not trust the authority that signed {tls.certificate}"


def _retry_after(error: grpc.RpcError) -> float:
    metadata: Any = error.trailing_metadata() or ()  # the stubs know only one entry of it
    asked = dict(metadata).get("retry-after-s", "0")
    try:
        return min(max(float(asked), 0.0), LONGEST_ASKED_S)
    except ValueError:
        return 0.0  # a hint that we cannot read is no hint
