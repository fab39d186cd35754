"""Where the server listens, and by which certificates it knows itself and others. Errors say what to change."""

import errno
import ipaddress
import logging
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc

from common.errors import EXIT_ADDRESS, EXIT_IDENTITY, ConfigError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Address:
    host: str  # without brackets
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


@dataclass(frozen=True)
class Tls:
    """Files in PEM form: the server's chain and key, and the authority that signs devices and operators."""

    certificate: Path
    key: Path
    client_ca: Path


def parse_address(text: str) -> Address:
    """`HOST:PORT`, with an IPv6 address in brackets; port 0 takes a free one.

    Raises:
        ConfigError: it is of another form.
    """
    host, separator, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    fits = separator and bare and port.isdecimal() and int(port) < 1 << 16 and (":" not in bare or bare != host)
    if not fits:
        raise ConfigError(
            f"--listen: expected HOST:PORT or [IPv6]:PORT with a port from 0 to 65535, got {text!r}",
            exit_code=EXIT_ADDRESS,
        )
    return Address(bare, int(port))


def check_free(address: Address) -> None:
    """That this program can listen there; gRPC itself says only that it could not.

    Raises:
        ConfigError: naming the reason.
    """
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {address}: no address of that name ({error.strerror or error}); give one of this"
            " machine's, 0.0.0.0 or [::] for all",
            exit_code=EXIT_ADDRESS,
        ) from error
    for family, kind, protocol, _, at in found:
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(at)
                probe.listen(1)
            except OSError as error:
                raise ConfigError(f"cannot listen on {address}: {_reason(error)}", exit_code=EXIT_ADDRESS) from error


def _reason(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "another program listens there already; stop it or give another port with --listen"
        case errno.EADDRNOTAVAIL:
            return "this machine has no such address; give one that it has, 0.0.0.0 or [::] for all"
        case errno.EACCES:
            return "ports below 1024 need more rights; give a higher one with --listen"
        case errno.EAFNOSUPPORT:
            return "this machine has no IPv6; give an IPv4 address"
        case _:
            return str(error.strerror or error)


def check_exposed(addresses: Iterable[Address], tls: Tls | None, *, insecure: bool) -> None:
    """That nothing but loopback is served in the clear unless asked for.

    Raises:
        ConfigError: an address needs TLS or --insecure.
    """
    if tls is not None and insecure:
        raise ConfigError(
            "give --tls-cert, --tls-key and --client-ca, or --insecure, not both", exit_code=EXIT_IDENTITY
        )
    for address in addresses:
        if tls is None and not insecure and not address.is_loopback:
            raise ConfigError(
                f"{address} can be reached from other machines: give --tls-cert, --tls-key and --client-ca, or"
                " --insecure to let anyone there join",
                exit_code=EXIT_IDENTITY,
            )


def credentials(tls: Tls) -> grpc.ServerCredentials:
    """Mutual TLS; the files are looked at again at every handshake, so certificates can be renewed in place.

    Raises:
        ConfigError: a file is missing or cannot be used.
    """
    check_files(tls)
    seen = _stamps(tls)

    def renewed() -> Any:  # None for "as before", which the stubs do not know
        nonlocal seen
        try:
            now = _stamps(tls)
            if now == seen:
                return None
            check_files(tls)
            configuration = _configuration(tls)
        except (OSError, ConfigError) as error:
            log.error("certificate_not_renewed error=%s", error)  # the old one goes on serving
            return None
        seen = now
        log.info("certificate_renewed file=%s", tls.certificate)
        return configuration

    return grpc.dynamic_ssl_server_credentials(_configuration(tls), renewed, require_client_authentication=True)


def check_files(tls: Tls) -> None:
    """That certificate, key and authority can be read, fit each other, and are in force.

    Raises:
        ConfigError: naming the file.
    """
    from cryptography import x509  # 10 MB, and only servers with TLS need it
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    texts = {}
    for option, path in (("--tls-cert", tls.certificate), ("--tls-key", tls.key), ("--client-ca", tls.client_ca)):
        try:
            texts[option] = path.read_bytes()
        except OSError as error:
            raise _unusable(option, path, error.strerror or str(error)) from error
    try:
        certificate = x509.load_pem_x509_certificate(texts["--tls-cert"])
    except ValueError as error:
        raise _unusable("--tls-cert", tls.certificate, "no certificate in PEM form in it") from error
    try:
        x509.load_pem_x509_certificate(texts["--client-ca"])
    except ValueError as error:
        raise _unusable("--client-ca", tls.client_ca, "no certificate in PEM form in it") from error
    try:
        key = load_pem_private_key(texts["--tls-key"], password=None)
    except (ValueError, TypeError) as error:
        raise _unusable("--tls-key", tls.key, "no private key in PEM form without a password in it") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise _unusable("--tls-key", tls.key, f"gRPC needs an ECDSA P-256 or RSA key; got {type(key).__name__}")
    if key.public_key() != certificate.public_key():
        raise _unusable("--tls-key", tls.key, f"it is not the key of {tls.certificate}")
    if certificate.not_valid_after_utc < datetime.now(UTC):
        ended = certificate.not_valid_after_utc.isoformat()
        raise _unusable("--tls-cert", tls.certificate, f"it expired at {ended}; install a new one")


def _unusable(option: str, path: Path, reason: str) -> ConfigError:
    return ConfigError(f"{option} {path} cannot be used: {reason}", exit_code=EXIT_IDENTITY)


def _configuration(tls: Tls) -> grpc.ServerCertificateConfiguration:
    pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
    return grpc.ssl_server_certificate_configuration([pair], root_certificates=tls.client_ca.read_bytes())


def _stamps(tls: Tls) -> tuple[int, ...]:
    return tuple(path.stat().st_mtime_ns for path in (tls.certificate, tls.key, tls.client_ca))


def tls_from(certificate: Path | None, key: Path | None, client_ca: Path | None) -> Tls | None:
    """All three files or none.

    Raises:
        ConfigError: some are missing.
    """
    given = {"--tls-cert": certificate, "--tls-key": key, "--client-ca": client_ca}
    missing = [option for option, path in given.items() if path is None]
    if len(missing) == len(given):
        return None
    if certificate is None or key is None or client_ca is None:
        raise ConfigError(
            f"TLS needs --tls-cert, --tls-key and --client-ca, so that both sides know each other; missing:"
            f" {', '.join(missing)}",
            exit_code=EXIT_IDENTITY,
        )
    return Tls(certificate, key, client_ca)
