"""A certificate authority for tests, and what it signs: ECDSA P-256, because gRPC knows no Ed25519."""

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Signed:
    """PEM files of one certificate."""

    certificate: Path
    key: Path

    @property
    def pair(self) -> tuple[bytes, bytes]:
        """(key, certificate), as gRPC wants them."""
        return self.key.read_bytes(), self.certificate.read_bytes()


class Authority:
    """Signs into a folder; `file` is its own certificate."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"edgefed test {name}")])
        now = datetime.now(UTC)
        builder = _builder(self._name, self._name, self._key, now - DAY, now + DAY)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))

    def server(self, *, begins: timedelta = -DAY, ends: timedelta = DAY) -> Signed:
        """For a server on loopback: localhost, 127.0.0.1 and ::1."""
        names = [
            x509.DNSName("localhost"),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
            x509.IPAddress(ipaddress.ip_address("::1")),
        ]
        return self._sign("server", names, ExtendedKeyUsageOID.SERVER_AUTH, begins, ends)

    def host(self, name: str, *, begins: timedelta = -DAY, ends: timedelta = DAY) -> Signed:
        return self._owner("host", name, begins, ends)

    def operator(self, name: str = "alice", *, begins: timedelta = -DAY, ends: timedelta = DAY) -> Signed:
        return self._owner("operator", name, begins, ends)

    def nobody(self) -> Signed:
        """Signed, but saying of nobody that it is theirs."""
        return self._sign("nobody", [x509.DNSName("nobody")], ExtendedKeyUsageOID.CLIENT_AUTH, -DAY, DAY)

    def _owner(self, kind: str, name: str, begins: timedelta, ends: timedelta) -> Signed:
        uris = [x509.UniformResourceIdentifier(f"edgefed:{kind}/{name}")]
        return self._sign(f"{kind}-{name}", uris, ExtendedKeyUsageOID.CLIENT_AUTH, begins, ends)

    def _sign(
        self,
        file: str,
        names: list[x509.DNSName] | list[x509.UniformResourceIdentifier] | list[x509.GeneralName],
        use: x509.ObjectIdentifier,
        begins: timedelta,
        ends: timedelta,
    ) -> Signed:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, file[:60])])
        now = datetime.now(UTC)
        builder = _builder(subject, self._name, key, now + begins, now + ends)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        signed = Signed(self._folder / f"{file}.pem", self._folder / f"{file}.key")
        signed.certificate.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))
        signed.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return signed


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, begins: datetime, ends: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
    )
