"""A certificate names its owner; expiry is looked at in every call."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from common.errors import RemoteFault
from server.identity import Caller, caller, check_agent, check_host, check_operator, check_owner
from tests.certificates import Authority, Signed


def context(signed: Signed, *uris: str) -> dict[str, list[bytes]]:
    return {"x509_pem_cert": [signed.certificate.read_bytes()], "peer_uri": [uri.encode() for uri in uris]}


@pytest.fixture
def signed(tmp_path: Path) -> Signed:
    return Authority(tmp_path).host("pi")


def test_host_and_operator_are_known_by_their_uri(signed: Signed) -> None:
    assert caller(context(signed, "edgefed:host/pi")).host == "pi"
    assert caller(context(signed, "https://x", "edgefed:operator/alice")).operator == "alice"


def test_without_tls_the_caller_is_unknown() -> None:
    assert caller({}) == Caller()


@pytest.mark.parametrize(
    "uris", [(), ("https://x",), ("edgefed:host/a", "edgefed:host/b"), ("edgefed:host/a", "edgefed:operator/b")]
)
def test_certificate_that_does_not_say_whose_it_is_is_refused(signed: Signed, uris: tuple[str, ...]) -> None:
    with pytest.raises(RemoteFault, match="does not say whose it is: expected one URI SAN"):
        caller(context(signed, *uris))


def test_expiry_is_checked_at_the_moment_of_the_call(signed: Signed) -> None:
    shown = context(signed, "edgefed:host/pi")
    now = datetime.now(UTC)
    assert caller(shown, now).host == "pi"
    with pytest.raises(RemoteFault, match="certificate expired at"):
        caller(shown, now + timedelta(days=2))
    with pytest.raises(RemoteFault, match=r"valid from .* look at the clocks"):
        caller(shown, now - timedelta(days=2))


@pytest.mark.parametrize("agent", ["pi", "pi/0", "pi/flowers/a.b-c_d"])
def test_host_owns_its_agents(agent: str) -> None:
    check_agent("pi", agent)
    assert check_owner(Caller(host="pi"), agent) == "pi"


@pytest.mark.parametrize(
    "agent", ["", "p", "pi2", "pie/0", "other/pi", "pi/", "pi//x", "pi/../x", "pi/a b", "pi/" + "x" * 300]
)
def test_host_owns_no_other_agents(agent: str) -> None:
    with pytest.raises(RemoteFault, match="host"):
        check_owner(Caller(host="pi"), agent)


@pytest.mark.parametrize("name", ["", "a/b", "ä", "-x", "x" * 65, "a\nb"])
def test_names_that_a_host_may_not_have(name: str) -> None:
    with pytest.raises(RemoteFault, match="a host's name"):
        check_host(Caller(), name)


def test_operators_do_not_join_and_devices_do_not_operate() -> None:
    with pytest.raises(RemoteFault, match="operator's certificate cannot join"):
        check_host(Caller(operator="alice"), "pi")
    with pytest.raises(RemoteFault, match="got host/pi"):
        check_operator(Caller(host="pi"))
    with pytest.raises(RemoteFault, match="got no certificate"):
        check_operator(Caller())
    assert check_operator(Caller(operator="alice")) == "alice"
