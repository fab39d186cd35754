"""This host's own certificate, looked at before the server is blamed.

A server that refuses a certificate closes the connection and says nothing, whether the certificate is missing, of
another authority, for another purpose or expired. So the likely cause is read from our own files. `cryptography` is
10 MB and is loaded here only.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import EXIT_IDENTITY, ConfigError

if TYPE_CHECKING:
    from cryptography import x509

HOST_URI = "edgefed:host/"


@dataclass(frozen=True)
class Tls:
    """Files of a TLS connection; they are read anew whenever the channel is built."""

    ca: Path
    certificate: Path | None = None
    key: Path | None = None
    server_name: str | None = None  # expected of the server's certificate, when it is not the address

    def files(self) -> tuple[Path, ...]:
        return tuple(path for path in (self.ca, self.certificate, self.key) if path is not None)


def read(path: Path) -> bytes:
    """Contents of a certificate or key file.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as fault:
        raise ConfigError(
            f"cannot read {path}; give a PEM file that this user may read: {fault.strerror}", exit_code=EXIT_IDENTITY
        ) from fault


def complaint(tls: Tls, host: str, now: datetime | None = None) -> str | None:
    """What is wrong with our own files, as one sentence; None when they look right."""
    now = datetime.now(UTC) if now is None else now
    try:
        ca, own, key = (None if path is None else read(path) for path in (tls.ca, tls.certificate, tls.key))
    except ConfigError as fault:
        return str(fault)
    if own is None or key is None:
        return "no certificate of our own: servers that ask for one refuse us; give --tls-cert and --tls-key"
    return _authority(tls.ca, ca or b"") or _own(tls, own, key, host, now)


def _authority(path: Path, pem: bytes) -> str | None:
    from cryptography import x509

    try:
        x509.load_pem_x509_certificates(pem)
    except ValueError:
        return f"{path} holds no PEM certificate; give the authority's with --tls-ca"
    return None


def _own(tls: Tls, pem: bytes, key_pem: bytes, host: str, now: datetime) -> str | None:
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    try:
        certificate = x509.load_pem_x509_certificate(pem)
        key = serialization.load_pem_private_key(key_pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as fault:
        return f"{tls.certificate} and {tls.key} are not a PEM certificate and its unencrypted key: {fault}"
    if key.public_key() != certificate.public_key():
        return f"{tls.key} is not the key of {tls.certificate}; give the pair that was made together"
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        return f"gRPC cannot use the key of {tls.certificate}; make one with ECDSA P-256: got {type(key).__name__}"
    if now > certificate.not_valid_after_utc:
        return f"{tls.certificate} expired at {certificate.not_valid_after_utc.isoformat()}; install a new one"
    if now < certificate.not_valid_before_utc:
        return (
            f"{tls.certificate} is valid from {certificate.not_valid_before_utc.isoformat()} only;"
            f" set this machine's clock: it says {now.isoformat(timespec='seconds')}"
        )
    return _purpose(tls, certificate) or _name(tls, certificate, host)


def _purpose(tls: Tls, certificate: "x509.Certificate") -> str | None:
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return None
    if ExtendedKeyUsageOID.CLIENT_AUTH not in usages:
        return f"{tls.certificate} is not for clients; make one with extended key usage clientAuth"
    return None


def _name(tls: Tls, certificate: "x509.Certificate", host: str) -> str | None:
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        uris = []
    if uris != [HOST_URI + host]:
        return (
            f"{tls.certificate} is another host's; make one with the URI SAN {HOST_URI}{host}, or give its own name"
            f" with --name: got {', '.join(uris) or 'no URI SAN'}"
        )
    return None
