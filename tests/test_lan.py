"""Federations over slow links: a LAN of network namespaces at 100 Mbit/s, and a connection that is slow and breaks."""

import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from common import pb
from common.wire.limits import PART_BYTES
from tests import lan
from tests.certificates import Authority
from tests.processes import PATIENCE_S, Federation, federation, write_data
from tests.relay import CHUNK, relay

HIDDEN = 40_000  # x (6 + 1 + 3) float32 and three more: 1.6 MB
RUN = """
[run]
method = "fedavg"
rounds = {rounds}
seed = 5
[model]
name = "mlp"
input = "6"
hidden = {hidden}
[optimiser]
lr = 0.05
batch = 32
epochs = 1
[agents]
min = {agents}
[data]
classes = ["0", "1", "2"]
[evaluation]
every = 0
"""
PORT = 8470
WINDOW_BYTES = 128 << 10  # fed-server --window
NO_LAN = lan.why_not()

# Shares of bytes on the wire above bytes reported, as stated in docs/metering.md; each with room for other kernels.
HTTP_AND_TLS = (0.001, 0.006)  # 0.2 %: 9 bytes a frame and 22 a record of at most 16 KiB each, window updates, Join
# 4.6 % are 66 bytes of Ethernet, IP and TCP around each 1,448; 2.2 % the acknowledgements of what goes the other way
TCP_AND_BELOW = (0.045, 0.09)


def wait_for_agents(fleet: Federation, n: int) -> None:
    end = time.monotonic() + PATIENCE_S
    operations = fleet.operations()
    while sum(agent.online for agent in operations.ListAgents(pb.ListAgentsRequest()).agents) < n:
        assert time.monotonic() < end, fleet.told()
        time.sleep(0.02)


def reported(rounds: Iterable[pb.RoundReport]) -> tuple[int, int]:
    """(up, down) as the agents' transfer reports have it."""
    transfers = [agent.transfer for report in rounds for agent in report.agents]
    return sum(t.bytes_up for t in transfers), sum(t.bytes_down for t in transfers)


@pytest.mark.netns
@pytest.mark.slow
@pytest.mark.skipif(bool(NO_LAN), reason=NO_LAN)
def test_bytes_and_round_times_on_a_lan_with_mutual_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with lan.lan(("server", "a", "b")) as hosts, federation(tmp_path) as fleet:
        server, address = hosts["server"], f"{hosts['server'].address}:{PORT}"
        fleet.prefix, own = server.inside, authority.server()
        tls = ("--tls-cert", str(own.certificate), "--tls-key", str(own.key), "--client-ca", str(authority.file))
        fleet.server(*tls, listen=address)
        for seed, name in enumerate("ab"):
            fleet.prefix, own = hosts[name].inside, authority.host(name)
            tls = ("--tls-cert", str(own.certificate), "--tls-key", str(own.key), "--tls-ca", str(authority.file))
            data = write_data(tmp_path / f"{name}.npz", 32, seed=seed)
            fleet.agent(name, data, *tls, "--tls-name", "localhost", address=address)
        wait_for_agents(fleet, 2)
        tcp, interface = server.tcp_bytes(), server.interface_bytes()
        fleet.submit(RUN.format(rounds=6, hidden=HIDDEN, agents=2), "run")
        rounds = fleet.finished("run").rounds
        tcp = tuple(after - before for before, after in zip(tcp, server.tcp_bytes(), strict=True))
        interface = tuple(after - before for before, after in zip(interface, server.interface_bytes(), strict=True))
    for said, in_tcp, on_wire in zip(reported(rounds), tcp, interface, strict=True):  # up, then down
        assert HTTP_AND_TLS[0] < in_tcp / said - 1 < HTTP_AND_TLS[1], (said, in_tcp)
        assert TCP_AND_BELOW[0] < on_wire / in_tcp - 1 < TCP_AND_BELOW[1], (in_tcp, on_wire)
    both_ways = [sum(reported([report])) for report in rounds]
    ratios = [report.seconds * lan.BYTES_PER_S / n for report, n in zip(rounds, both_ways, strict=True)]
    # The server's own link carries everything, down and then up. All of it at once in both directions would be 0.5;
    # 1.0 is one direction at a time with no pause. Seen: 0.97 to 1.17, where training, commit and fsync are the rest;
    # whatever else the machine does makes rounds slower, so the fastest counts. A pause a part would be far beyond 3.
    assert 0.5 < min(ratios) < 3, ratios


@pytest.mark.slow
def test_upload_that_breaks_off_goes_on_where_the_server_is(tmp_path: Path) -> None:
    """On a link with delay, at 4 MB/s: the connection ends in the second of four parts."""
    with federation(tmp_path) as fleet:
        fleet.server()
        with relay(fleet.port, bytes_per_s=4e6, delay_s=0.001) as between:
            fleet.agent("a", write_data(tmp_path / "a.npz", 32, seed=1), via=between.port)
            fleet.submit(RUN.format(rounds=2, hidden=HIDDEN, agents=1), "run")
            fleet.wait("run", lambda detail: len(detail.rounds) >= 1)
            before = between.bytes_up
            between.wait_for_upload(PART_BYTES + PART_BYTES // 2)
            between.cut()
            whole, broken = fleet.finished("run").rounds
            came = between.bytes_up - before
    needed = reported([whole])[0]
    sent_again = came - needed
    assert sent_again > PART_BYTES // 4  # else nothing was cut, or not in the middle of a part
    # What the server held of whole parts stays: the broken part comes again, and what stood in the window behind it.
    # The relay may have taken a chunk that it could not pass on; 8 KB are the new connection, hello and small messages.
    assert sent_again < PART_BYTES + WINDOW_BYTES + CHUNK + 8192
    # The agent counts what it gives to gRPC, which is one part ahead of the connection.
    said_again = reported([broken])[0] - needed
    assert sent_again < said_again + 8192 < sent_again + PART_BYTES + WINDOW_BYTES
