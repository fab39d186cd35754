"""The front over real sockets: what a device may do, what it is told, and that bytes in flight stay bounded."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from running_front import (
    WAIT_S,
    Device,
    RunningFront,
    Spooling,
    fetch,
    header,
    hello,
    key,
    running,
    slice_of,
    submit,
)

from common import pb
from common.errors import EXIT_ADDRESS, EXIT_IDENTITY, ConfigError, LocalFault, RemoteFault
from server.downloads import Downloads
from server.events import Gone, Joined, Replied, Took
from server.fleet import Fleet
from server.front import FEDERATION, FrontOptions
from server.listen import Tls, check_exposed, parse_address, tls_from
from tests.certificates import Authority, Signed
from tests.server.workshop import wait_for


@pytest.fixture(scope="module")
def shared() -> Iterator[RunningFront]:
    """One front for the tests that leave nothing behind but their own hosts."""
    with running() as up:
        yield up


@pytest.fixture
def channel(shared: RunningFront) -> Iterator[grpc.Channel]:
    with shared.channel() as channel:
        yield channel


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def tls_of(authority: Authority) -> Tls:
    signed = authority.server()
    return Tls(signed.certificate, signed.key, authority.file)


def credentials(authority: Authority, signed: Signed) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(authority.file.read_bytes(), *signed.pair)


def code_of(call: object) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as raised:
        list(call)  # type: ignore[call-overload]
    return raised.value.code(), raised.value.details()


# ---------------------------------------------------------------------------------------------- join


def test_join_is_welcomed_remembered_and_told_to_engines(shared: RunningFront, channel: grpc.Channel) -> None:
    events = shared.fleet.subscribe("r-join")
    device = Device(channel, hello("a", "a/0", "a/1", part_bytes=64 << 10))
    welcome = device.next("welcome")
    assert (welcome.protocol, welcome.part_bytes) == (1, 64 << 10)
    assert events.get(timeout=WAIT_S) == Joined(("a/0", "a/1"))
    assert shared.remembered[-1].host == "a"
    device.leave()
    assert device.end() is grpc.StatusCode.OK
    assert events.get(timeout=WAIT_S) == Gone(("a/0", "a/1"))


def test_offers_are_pushed_to_an_idle_host_and_its_answers_reach_the_engine(
    shared: RunningFront, channel: grpc.Channel
) -> None:
    device = Device(channel, hello("b"))
    device.next("welcome")
    events = shared.fleet.subscribe("r-push")
    asked = key("b", 4, "r-push")
    assert shared.fleet.offer(pb.Offer(key=asked.message()))
    assert device.next("offer").key == asked.message()
    device.say(accepted=pb.Accepted(key=asked.message()))
    assert events.get(timeout=WAIT_S) == Took(asked)
    device.leave()
    assert device.end() is grpc.StatusCode.OK


def test_a_broken_connection_is_noticed(shared: RunningFront) -> None:
    events = shared.fleet.subscribe("r-broken")
    with shared.channel() as channel:
        Device(channel, hello("c")).next("welcome")
        assert events.get(timeout=WAIT_S) == Joined(("c",))
    assert events.get(timeout=WAIT_S) == Gone(("c",))


def test_same_instance_replaces_the_old_stream_another_is_refused(shared: RunningFront, channel: grpc.Channel) -> None:
    first = Device(channel, hello("d"))
    first.next("welcome")
    other = Device(channel, hello("d", instance="i2"))
    assert "already connected from another installation" in other.next("refused").reason
    assert other.end() is grpc.StatusCode.FAILED_PRECONDITION
    again = Device(channel, hello("d"))
    again.next("welcome")
    assert "replaced" in first.next("refused").reason
    assert first.end() is grpc.StatusCode.OK
    assert shared.fleet.offer(pb.Offer(key=key("d").message()))
    again.next("offer")
    again.leave()
    again.end()


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (hello("e", "e/0", "e/0"), "two agents have the name 'e/0'"),
        (hello("e", "f/0"), "does not belong to this host: expected e or e/…"),
        (hello("e f"), "a host's name is"),
        (hello("e", instance=""), "expected an instance of 1 to 128 characters, got 0"),
        (pb.Hello(host="e", instance="i", protocol=1), "expected 1 to 1024 agents, got 0"),
        (pb.Hello(host="e", instance="i", protocol=9, version="9.9"), "expected protocol 1, got 9 (edgefed 9.9 there)"),
    ],
)
def test_hello_that_will_not_do_is_told_why(channel: grpc.Channel, message: pb.Hello, reason: str) -> None:
    device = Device(channel, message)
    assert reason in device.next("refused").reason
    assert device.end() is grpc.StatusCode.PERMISSION_DENIED


def test_a_host_that_speaks_for_another_loses_its_stream(shared: RunningFront, channel: grpc.Channel) -> None:
    device = Device(channel, hello("g"))
    device.next("welcome")
    device.say(accepted=pb.Accepted(key=key("other").message()))
    assert device.end() is grpc.StatusCode.INVALID_ARGUMENT
    assert not {a.name: a.online for a in shared.fleet.agents()}["g"]


def test_stream_that_does_not_begin_with_hello_ends(channel: grpc.Channel) -> None:
    call = channel.stream_stream("/edgefed.v1.Federation/Join", None, None)
    assert code_of(call(iter([b"\xff\xff"]), timeout=WAIT_S))[0] is grpc.StatusCode.INVALID_ARGUMENT
    leaving = pb.AgentEvent(leaving=pb.Leaving()).SerializeToString()
    code, details = code_of(call(iter([leaving]), timeout=WAIT_S))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "expected a hello first, got leaving" in details


# ---------------------------------------------------------------------------------------------- fetch


def test_fetch_gives_what_was_offered_from_any_offset(shared: RunningFront, channel: grpc.Channel) -> None:
    device = Device(channel, hello("k", "k/0", "k/1", part_bytes=4096))
    device.next("welcome")
    data = bytes(range(256)) * 300
    ref = shared.store.put(data)
    shared.fleet.offer(pb.Offer(key=key("k/0").message(), task=pb.Record(payloads=[ref])))
    parts = [part.slice for part in fetch(channel, "k/0", ref.sha256)]
    assert b"".join(part.data for part in parts) == data
    assert max(len(part.data) for part in parts) == 4096
    assert b"".join(part.slice.data for part in fetch(channel, "k/0", ref.sha256, 70_000)) == data[70_000:]
    code, details = code_of(fetch(channel, "k/1", ref.sha256))
    assert code is grpc.StatusCode.NOT_FOUND
    assert "no open offer to agent k/1" in details
    shared.fleet.withdraw(key("k/0"), "over")
    assert code_of(fetch(channel, "k/0", ref.sha256))[0] is grpc.StatusCode.NOT_FOUND
    device.leave()
    device.end()


def test_many_downloads_at_once_share_the_budget_and_all_end() -> None:
    with running(FrontOptions(part_bytes=4096, in_flight_bytes=16 << 10)) as up, up.channel() as channel:
        device = Device(channel, hello("k"))
        device.next("welcome")
        data = bytes(1_000_000)
        ref = up.store.put(data)
        up.fleet.offer(pb.Offer(key=key("k").message(), task=pb.Record(payloads=[ref])))

        def fetched(_: int) -> int:
            return sum(len(part.slice.data) for part in fetch(channel, "k", ref.sha256))

        with ThreadPoolExecutor(12) as readers:
            assert list(readers.map(fetched, range(12))) == [len(data)] * 12
        abandoned = fetch(channel, "k", ref.sha256)
        next(abandoned)
        abandoned.cancel()
        assert fetched(0) == len(data)
        wait_for(lambda: up.front.downloads._budget.free == 16 << 10)
        device.leave()


def test_download_that_is_not_read_is_ended_with_what_to_do() -> None:
    with running(FrontOptions(stall_s=0.3, window_bytes=64 << 10)) as up, up.channel() as channel:
        device = Device(channel, hello("k"))
        device.next("welcome")
        ref = up.store.put(bytes(64 << 20))
        up.fleet.offer(pb.Offer(key=key("k").message(), task=pb.Record(payloads=[ref])))
        call = fetch(channel, "k", ref.sha256)
        next(call)
        done = threading.Event()
        call.add_callback(done.set)
        assert not done.wait(1.5)  # nobody reads: the status comes behind what is unread
        code, details = code_of(call)
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "not read any further for 0.3 s" in details
        device.leave()


def test_downloads_that_are_not_read_leave_room_for_others() -> None:
    with running() as up, up.channel() as channel:
        device = Device(channel, hello("k"))
        device.next("welcome")
        large, small = up.store.put(bytes(64 << 20)), up.store.put(bytes(3 << 20))
        up.fleet.offer(pb.Offer(key=key("k").message(), task=pb.Record(payloads=[large, small])))
        unread = [fetch(channel, "k", large.sha256) for _ in range(4)]
        for call in unread:
            next(call)
        time.sleep(1)  # until what the device's side takes in unread is full
        assert sum(len(part.slice.data) for part in fetch(channel, "k", small.sha256)) == 3 << 20
        for call in unread:
            call.cancel()
        device.leave()
        wait_for(lambda: up.front.downloads._budget.free == FrontOptions().in_flight_bytes)


def test_a_download_that_is_cancelled_while_it_ends_gives_its_budget_back() -> None:
    """A write fails because its reader is gone, and gRPC cancels the call while what was made ahead is waited for."""

    go_on = threading.Event()

    class Slow:
        def has(self, sha256: bytes) -> bool:
            return True

        def parts(self, sha256: bytes, offset: int, part_bytes: int) -> Iterator[bytes]:
            yield from [b"x" * 8] * 6  # one, one, and a hop
            assert go_on.wait(WAIT_S)
            yield from [b"x" * 8] * 4

    class Away:
        def __init__(self) -> None:
            self.n, self.failed = 0, asyncio.Event()

        async def write(self, part: bytes) -> None:
            self.n += 1
            await asyncio.sleep(0.01)  # a thread begins with what comes next
            if self.n == 3:  # after two that were quick, with the next hop on its way
                self.failed.set()
                raise RuntimeError("execute_batch failed")

    async def twice() -> int:
        with ThreadPoolExecutor(2) as pool:
            downloads = Downloads(Slow(), Fleet(), pool, budget_bytes=1000, part_bytes=8)
            gone: Any = Away()
            call = asyncio.create_task(downloads._send(pb.FetchRequest(sha256=b"x"), 8, gone))
            await gone.failed.wait()
            await asyncio.sleep(0.01)
            assert not call.done()
            call.cancel()
            go_on.set()
            await asyncio.wait({call})
            return downloads._budget.free

    assert asyncio.run(twice()) == 1000


# ---------------------------------------------------------------------------------------------- submit


def test_submit_resumes_where_the_server_is_and_gives_a_receipt(shared: RunningFront, channel: grpc.Channel) -> None:
    of = key("s")
    events = shared.fleet.subscribe("r")
    shared.spool.kept[of] = [slice_of(b"abc")]
    (resume, receipt) = submit(channel, iter([header(of), slice_of(b"def", 3), slice_of(b"ghi", 6)]))
    assert list(resume.resume.offsets) == [3]
    assert receipt.receipt.verdict == pb.ACCEPTED
    assert shared.spool.kept[of] == [slice_of(b"abc"), slice_of(b"def", 3), slice_of(b"ghi", 6)]
    assert events.get(timeout=WAIT_S) == Replied(of)
    (again,) = submit(channel, iter([header(of)]))
    assert again.receipt == receipt.receipt
    shared.fleet.unsubscribe("r")


def test_parts_of_a_refused_reply_give_the_receipt_that_says_so(shared: RunningFront, channel: grpc.Channel) -> None:
    def refuse(upload: Spooling, part: bytes) -> None:
        upload.fault = RemoteFault("crc differs")
        raise upload.fault

    shared.spool.on_feed = refuse
    try:
        *_, last = submit(channel, iter([header(key("s", 1)), slice_of(b"x")]))
    finally:
        shared.spool.on_feed = lambda upload, part: None
    assert (last.receipt.verdict, last.receipt.reason) == (pb.REFUSED, "crc differs")


def wrapped_full_disk() -> LocalFault:
    """As what writes payloads raises it."""
    fault = LocalFault("cannot write x: No space left on device")
    fault.__cause__ = OSError(28, "No space left on device")
    return fault


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (OSError(28, "No space left on device"), grpc.StatusCode.RESOURCE_EXHAUSTED, "disk is full; nothing was lost"),
        (wrapped_full_disk(), grpc.StatusCode.RESOURCE_EXHAUSTED, "disk is full; nothing was lost"),
        (ValueError("boom"), grpc.StatusCode.INTERNAL, "fault in the server: ValueError: boom"),
    ],
)
def test_fault_of_the_server_keeps_what_came_and_is_never_the_devices(
    shared: RunningFront, channel: grpc.Channel, error: Exception, code: grpc.StatusCode, text: str
) -> None:
    def fail(upload: Spooling, part: bytes) -> None:
        raise error

    shared.spool.on_feed = fail
    try:
        got, details = code_of(submit(channel, iter([header(key("s", 2)), slice_of(b"x")])))
    finally:
        shared.spool.on_feed = lambda upload, part: None
    assert got is code
    assert text in details
    while (upload := shared.spool.opened.get(timeout=WAIT_S)).key != key("s", 2):
        pass
    assert upload.abandoned.wait(WAIT_S)


def test_submit_must_begin_with_a_header(channel: grpc.Channel) -> None:
    code, details = code_of(submit(channel, iter([slice_of(b"x")])))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "expected the header of a reply first, got slice" in details
    assert code_of(submit(channel, iter([b"\xff\xff"])))[0] is grpc.StatusCode.INVALID_ARGUMENT


def opened(up: RunningFront) -> Spooling:
    return up.spool.opened.get(timeout=WAIT_S)


def test_uploads_beyond_the_places_wait_for_their_turn_and_all_get_receipts() -> None:
    """32 at once with two places and a budget of four parts: never more than two feed, and nobody is forgotten."""
    feeding, most, lock = 0, 0, threading.Lock()

    def count(upload: Spooling, part: bytes) -> None:
        nonlocal feeding, most
        with lock:
            feeding += 1
            most = max(most, feeding)
        with lock:
            feeding -= 1

    options = FrontOptions(uploads=2, part_bytes=4096, in_flight_bytes=16 << 10)
    with running(options) as up, up.channel() as channel:
        up.spool.on_feed = count
        parts = [slice_of(bytes(4000), 4000 * i) for i in range(40)]
        calls = [submit(channel, iter([header(key(f"s{i}")), *parts])) for i in range(32)]
        assert [list(call)[-1].receipt.verdict for call in calls] == [pb.ACCEPTED] * 32
        assert all(up.spool.kept[key(f"s{i}")] == parts for i in range(32))
        uploads = up.front.uploads
        assert (uploads._places.free, uploads._budget.free, uploads._current) == (2, 16 << 10, {})
    assert most <= 3


def test_a_slow_upload_gives_its_place_away_and_still_ends() -> None:
    gate = threading.Event()

    def slowly() -> Iterator[bytes]:
        yield header(key("slow"))
        yield slice_of(b"a")
        assert gate.wait(WAIT_S)
        yield slice_of(b"b", 1)

    with running(FrontOptions(uploads=1)) as up, up.channel() as channel:
        slow = submit(channel, slowly())
        next(slow)
        assert opened(up).key == key("slow")
        *_, fast = submit(channel, iter([header(key("fast")), slice_of(b"x")]))
        assert fast.receipt.verdict == pb.ACCEPTED
        gate.set()
        assert next(slow).receipt.verdict == pb.ACCEPTED
        assert up.spool.kept[key("slow")] == [slice_of(b"a"), slice_of(b"b", 1)]


def test_silent_uploads_leave_room_for_others() -> None:
    gate = threading.Event()

    def silent(agent: str) -> Iterator[bytes]:
        yield header(key(agent))
        yield slice_of(b"a")
        assert gate.wait(WAIT_S)
        yield slice_of(b"b", 1)

    with running(FrontOptions(uploads=1, part_bytes=4096, in_flight_bytes=16 << 10)) as up, up.channel() as channel:
        calls = [submit(channel, silent(f"s{i}")) for i in range(6)]
        for call in calls:
            next(call)
        *_, fast = submit(channel, iter([header(key("fast")), slice_of(b"x")]))
        assert fast.receipt.verdict == pb.ACCEPTED
        gate.set()
        assert [next(call).receipt.verdict for call in calls] == [pb.ACCEPTED] * 6
        assert all(up.spool.kept[key(f"s{i}")] == [slice_of(b"a"), slice_of(b"b", 1)] for i in range(6))
        uploads = up.front.uploads  # which give back after the receipt
        wait_for(lambda: (uploads._places.free, uploads._budget.free) == (1, 16 << 10))


def test_silence_ends_an_upload_and_what_came_is_kept() -> None:
    gate = threading.Event()

    def silent() -> Iterator[bytes]:
        yield header(key("s"))
        yield slice_of(b"a")
        gate.wait(WAIT_S)

    with running(FrontOptions(stall_s=2)) as up, up.channel() as channel:
        code, details = code_of(submit(channel, silent()))
        gate.set()
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "no byte came for 2 s" in details
        assert opened(up).abandoned.wait(WAIT_S)
        assert up.spool.kept[key("s")] == [slice_of(b"a")]


def test_a_newer_upload_of_the_same_reply_takes_over_from_a_half_open_one() -> None:
    gate = threading.Event()

    def stuck() -> Iterator[bytes]:
        yield header(key("s"))
        yield slice_of(b"a")
        gate.wait(WAIT_S)

    with running() as up, up.channel() as channel:
        old = submit(channel, stuck())
        next(old)
        first = opened(up)
        fed = threading.Event()
        up.spool.on_feed = lambda upload, part: fed.set()
        *_, last = submit(channel, iter([header(key("s")), slice_of(b"b", 1)]))
        assert last.receipt.verdict == pb.ACCEPTED
        assert first.abandoned.is_set()
        code, details = code_of(old)
        gate.set()
        assert code is grpc.StatusCode.ABORTED
        assert "a newer upload of this reply has taken over" in details


def test_upload_cut_in_the_middle_is_abandoned_and_frees_its_place() -> None:
    gate = threading.Event()

    def parts() -> Iterator[bytes]:
        yield header(key("s"))
        yield slice_of(b"a")
        gate.wait(WAIT_S)

    with running(FrontOptions(uploads=1)) as up:
        with up.channel() as channel:
            next(submit(channel, parts()))
            upload = opened(up)
        gate.set()
        assert upload.abandoned.wait(WAIT_S)
        with up.channel() as channel:
            *_, last = submit(channel, iter([header(key("s")), slice_of(b"b", 1)]))
            assert last.receipt.verdict == pb.ACCEPTED


# ---------------------------------------------------------------------------------------------- draining, health


def test_drain_sends_hosts_away_finishes_uploads_and_refuses_new_ones() -> None:
    gate = threading.Event()

    def parts() -> Iterator[bytes]:
        yield header(key("s"))
        assert gate.wait(WAIT_S)
        yield slice_of(b"a")

    with running() as up, up.channel() as channel:
        health = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service=FEDERATION)
        assert health.Check(request, timeout=WAIT_S).status == health_pb2.HealthCheckResponse.SERVING
        statuses = health.Watch(request, timeout=WAIT_S)
        assert next(statuses).status == health_pb2.HealthCheckResponse.SERVING
        device = Device(channel, hello("pi"))
        device.next("welcome")
        upload = submit(channel, parts())
        next(upload)
        drained = up.drain(WAIT_S)
        assert next(statuses).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert device.next("come_back").after_s == 0.5
        assert device.end() is grpc.StatusCode.OK
        statuses.cancel()
        with up.channel() as late:
            device = Device(late, hello("late"))
            assert device.end() is grpc.StatusCode.UNAVAILABLE
        gate.set()
        assert next(upload).receipt.verdict == pb.ACCEPTED
        drained.result(WAIT_S)


# ---------------------------------------------------------------------------------------------- TLS


def test_a_certificate_binds_join_submit_and_fetch_to_its_host(authority: Authority) -> None:
    with running(tls=tls_of(authority)) as up, up.channel(credentials(authority, authority.host("pi"))) as channel:
        device = Device(channel, hello("pi", "pi/0"))
        device.next("welcome")
        *_, last = submit(channel, iter([header(key("pi/0"))]))
        assert last.receipt.verdict == pb.ACCEPTED
        other = Device(channel, hello("jetson"))
        reason = other.next("refused").reason
        assert "belongs to another host" in reason
        assert reason.endswith("expected pi, got jetson")
        assert other.end() is grpc.StatusCode.PERMISSION_DENIED
        for agent in ("jetson", "pi2", "pi2/0"):
            assert code_of(submit(channel, iter([header(key(agent))])))[0] is grpc.StatusCode.PERMISSION_DENIED
            assert code_of(fetch(channel, agent, bytes(32)))[0] is grpc.StatusCode.PERMISSION_DENIED
        device.leave()
        device.end()
    assert list(up.spool.kept) == []


def test_operators_and_certificates_of_nobody_cannot_join(authority: Authority) -> None:
    with running(tls=tls_of(authority)) as up:
        with up.channel(credentials(authority, authority.operator())) as channel:
            assert Device(channel, hello("pi")).end() is grpc.StatusCode.PERMISSION_DENIED
        with up.channel(credentials(authority, authority.nobody())) as channel:
            assert Device(channel, hello("pi")).end() is grpc.StatusCode.UNAUTHENTICATED


def test_expiry_ends_an_open_stream_and_refuses_calls_on_its_connection(authority: Authority) -> None:
    with running(tls=tls_of(authority)) as up:
        brief = authority.host("pi", ends=timedelta(seconds=4))  # of whole seconds, so three at least
        with up.channel(credentials(authority, brief)) as channel:
            device = Device(channel, hello("pi"))
            device.next("welcome")
            assert "this certificate expired at" in device.next("refused").reason
            assert device.end() is grpc.StatusCode.OK
            code, details = code_of(submit(channel, iter([header(key("pi"))])))
            assert code is grpc.StatusCode.UNAUTHENTICATED
            assert "install a new one" in details


@pytest.mark.parametrize("wrong", ["no certificate", "another authority", "expired", "in the clear"])
def test_connection_without_a_good_certificate_never_gets_through(tmp_path: Path, wrong: str) -> None:
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    shown = {
        "no certificate": grpc.ssl_channel_credentials(authority.file.read_bytes()),
        "another authority": grpc.ssl_channel_credentials(authority.file.read_bytes(), *stranger.host("pi").pair),
        "expired": grpc.ssl_channel_credentials(
            authority.file.read_bytes(), *authority.host("old", ends=timedelta(seconds=-1)).pair
        ),
        "in the clear": None,
    }[wrong]
    with running(tls=tls_of(authority)) as up, up.channel(shown) as channel:
        assert Device(channel, hello("pi")).end() is grpc.StatusCode.UNAVAILABLE
        assert up.fleet.agents() == ()


def test_a_renewed_certificate_is_used_for_the_next_connection(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = tls_of(authority)
    with running(tls=tls) as up:
        with up.channel(credentials(authority, authority.host("pi"))) as channel:
            Device(channel, hello("pi")).next("welcome")
        renewed = Authority(tmp_path, "renewed")
        signed = renewed.server()
        assert signed.certificate == tls.certificate
        with up.channel(credentials(renewed, authority.host("pi"))) as channel:
            Device(channel, hello("pi")).next("welcome")


# ---------------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:0", "localhost:0"])
def test_listens_on_either_family_and_says_which_port(listen: str) -> None:
    with running(listen=listen) as up:
        assert parse_address(up.address).port > 0
        with up.channel() as channel:
            device = Device(channel, hello("pi"))
            device.next("welcome")
            device.leave()
            device.end()


def test_port_in_use_is_one_clear_sentence() -> None:
    with running() as up, pytest.raises(ConfigError) as raised, running(listen=up.address):
        pass
    assert raised.value.exit_code == EXIT_ADDRESS
    assert f"cannot listen on {up.address}: another program listens there already" in str(raised.value)


@pytest.mark.parametrize(
    ("listen", "reason"),
    [
        ("192.0.2.1:0", "this machine has no such address"),
        ("no-such-host.invalid:0", "no address of that name"),
        ("127.0.0.1", "expected HOST:PORT"),
        ("::1:80", "expected HOST:PORT or [IPv6]:PORT"),
        ("127.0.0.1:65536", "with a port from 0 to 65535"),
        ("127.0.0.1:http", "expected HOST:PORT"),
    ],
)
def test_address_that_cannot_be_used_is_named(listen: str, reason: str) -> None:
    with pytest.raises(ConfigError) as raised, running(listen=listen):
        pass
    assert raised.value.exit_code == EXIT_ADDRESS
    assert reason in str(raised.value)


def test_only_loopback_is_served_in_the_clear_without_being_asked(authority: Authority) -> None:
    loopback, open_to_all = parse_address("[::1]:0"), parse_address("0.0.0.0:0")
    check_exposed([loopback], None, insecure=False)
    check_exposed([open_to_all], None, insecure=True)
    check_exposed([open_to_all], tls_of(authority), insecure=False)
    with pytest.raises(
        ConfigError, match=r"0\.0\.0\.0:0 can be reached from other machines: give --tls-cert"
    ) as raised:
        check_exposed([loopback, open_to_all], None, insecure=False)
    assert raised.value.exit_code == EXIT_IDENTITY
    with pytest.raises(ConfigError, match="not both"):
        check_exposed([loopback], tls_of(authority), insecure=True)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda tls: tls.certificate.unlink(), "--tls-cert .* cannot be used: No such file"),
        (lambda tls: tls.key.write_text("x"), "--tls-key .* cannot be used: no private key"),
        (lambda tls: tls.client_ca.write_text("x"), "--client-ca .* cannot be used: no certificate"),
        (lambda tls: Authority(tls.key.parent, "b").server().certificate.rename(tls.key.parent / "x"), "No such file"),
    ],
)
def test_certificate_files_that_cannot_be_used_are_named(authority: Authority, spoil: object, reason: str) -> None:
    tls = tls_of(authority)
    spoil(tls)  # type: ignore[operator]
    with pytest.raises(ConfigError, match=reason) as raised, running(tls=tls):
        pass
    assert raised.value.exit_code == EXIT_IDENTITY


def test_key_of_another_certificate_and_an_expired_one_are_named(authority: Authority) -> None:
    tls = tls_of(authority)
    with (
        pytest.raises(ConfigError, match="it is not the key of"),
        running(tls=Tls(tls.certificate, authority.host("pi").key, tls.client_ca)),
    ):
        pass
    old = authority.server(ends=timedelta(seconds=-1))
    with pytest.raises(ConfigError, match="it expired at"), running(tls=Tls(old.certificate, old.key, tls.client_ca)):
        pass


def test_tls_needs_all_three_files() -> None:
    assert tls_from(None, None, None) is None
    with pytest.raises(ConfigError, match="missing: --tls-key, --client-ca"):
        tls_from(Path("a"), None, None)
