"""A LAN on one machine: a switch and its hosts in network namespaces, joined by veth pairs at a fixed rate.

Made with iproute2 by root. Segmentation offload is off, so that interfaces count packets as a wire would carry them.
"""

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

RATE = "100mbit"
BYTES_PER_S = 100e6 / 8
# a packet and a bit: bursts would let small rounds look faster than the wire
SHAPER = ("tbf", "rate", RATE, "burst", "16kb", "latency", "50ms")
ONE_PACKET = ("gso_max_segs", "1", "gso_max_size", "1514")


@dataclass(frozen=True)
class Host:
    """A namespace with one interface."""

    namespace: str
    address: str

    @property
    def inside(self) -> tuple[str, ...]:
        """What goes before a command to run it there."""
        return ("ip", "netns", "exec", self.namespace)

    def interface_bytes(self) -> tuple[int, int]:
        """(received, sent), Ethernet frames and all that is in them."""
        text = _run(*self.inside, "cat", "/proc/net/dev")
        fields = next(line for line in text.splitlines() if line.strip().startswith("lan:")).split()
        return int(fields[1]), int(fields[9])

    def tcp_bytes(self) -> tuple[int, int]:
        """(received, sent and acknowledged) by the connections that are open now, each byte once."""
        text = _run(*self.inside, "ss", "-tinHO", "state", "established")
        received, acknowledged = (sum(int(n) for n in re.findall(rf"\b{name}:(\d+)", text)) for name in FIELDS)
        return received, acknowledged


FIELDS = ("bytes_received", "bytes_acked")


def why_not() -> str:
    """Why no LAN can be made here; empty when it can."""
    if os.geteuid() != 0:
        return "needs root to make network namespaces"
    missing = [tool for tool in ("ip", "tc", "ss") if shutil.which(tool) is None]
    if missing:
        return f"needs iproute2: no {', '.join(missing)} here"
    trial = f"edgefed-{os.getpid()}-trial"
    made = subprocess.run(["ip", "netns", "add", trial], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"no network namespaces here: {made.stderr.strip()}"
    _run("ip", "netns", "del", trial)
    return ""


@contextlib.contextmanager
def lan(names: Sequence[str]) -> Iterator[dict[str, Host]]:
    """Hosts by name, each on a link of its own to a bridge; all is removed on leaving."""
    switch = f"edgefed-{os.getpid()}-switch"
    hosts = {name: Host(f"edgefed-{os.getpid()}-{name}", f"10.77.0.{i}") for i, name in enumerate(names, 1)}
    with contextlib.ExitStack() as made:
        for namespace in (switch, *(host.namespace for host in hosts.values())):
            _run("ip", "netns", "add", namespace)
            made.callback(_run, "ip", "netns", "del", namespace)
            _run("ip", "-n", namespace, "link", "set", "lo", "up")
        _run("ip", "-n", switch, "link", "add", "bridge", "type", "bridge")
        _run("ip", "-n", switch, "link", "set", "bridge", "up")
        for i, host in enumerate(hosts.values()):
            port, of = f"port{i}", ("type", "veth", "peer", "name", "lan", "netns", host.namespace)
            _run("ip", "link", "add", port, "netns", switch, *of)
            _run("ip", "-n", switch, "link", "set", port, "master", "bridge")
            _run("ip", "-n", host.namespace, "addr", "add", f"{host.address}/24", "dev", "lan")
            for namespace, interface in ((switch, port), (host.namespace, "lan")):
                _run("ip", "-n", namespace, "link", "set", interface, *ONE_PACKET)
                _run("ip", "-n", namespace, "link", "set", interface, "up")
                _run("ip", "netns", "exec", namespace, "tc", "qdisc", "add", "dev", interface, "root", *SHAPER)
        yield hosts


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"
    return done.stdout
