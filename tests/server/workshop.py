"""A server without its front, for tests: journal, blobs, fleet, intake and runs in a folder that outlives it."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from common import pb
from common.blobs import Blobs
from server import initial
from server.fleet import Fleet
from server.intake import Intake
from server.journal import Journal
from server.runs import Runs
from tests.server.devices import Device, devices


def drawn_here(folder: Path, request: initial.Request, _check: Callable[[], None]) -> pb.Record:
    """In this process: the child is tried by a test of its own."""
    return initial.draw(Blobs(folder), request)


def wait_for(happened: Callable[[], bool], timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while not happened():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.002)


class Workshop:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.journal = Journal(folder / "state")
        self.blobs = Blobs(folder / "state" / "blobs")
        self.fleet = Fleet()
        self.fleet.restore((pb.Hello.FromString(hello), seen_at) for _, _, hello, seen_at in self.journal.hosts())
        self.intake = Intake(self.journal, self.blobs, self.fleet.tell)
        self.runs = Runs(self.journal, self.blobs, self.fleet, draw_first=drawn_here)
        self.devices: dict[str, Device] = {}

    def join(self, names: Iterable[str], **options: Any) -> dict[str, Device]:
        made = devices(names, self.fleet, self.intake, self.blobs, self.folder, **options)
        self.devices |= made
        for device in made.values():
            hello = device.hello()
            self.journal.save_host(hello.host, hello.instance, hello.SerializeToString(), 0.0)
            device.join()
        return made

    def ended(self, run: str, timeout: float = 60.0) -> pb.RunSummary:
        """Watch the run to its end."""
        events = self.runs.watch(run)
        while events.get(timeout=timeout) is not None:
            pass
        return self.summary(run)

    def summary(self, run: str) -> pb.RunSummary:
        found = self.journal.summary(run)
        assert found is not None
        return found

    def close(self) -> None:
        for device in self.devices.values():
            device.leave()
        self.runs.close()
        self.journal.close()

    def __enter__(self) -> "Workshop":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
