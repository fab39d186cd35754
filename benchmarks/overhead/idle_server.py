"""The real front and fleet, with a way to push at will: `push NAME` on stdin, `pushed NAME NANOSECONDS` on stdout.

An engine pushes only when a run asks for it; to time one push to one of many idle hosts, this stands in its place.
"""

import argparse
import asyncio
import sys
import time
from pathlib import Path

from common import pb
from common.blobs import Blobs
from server.fleet import Fleet
from server.front import Front
from server.intake import Intake
from server.journal import Journal
from server.listen import Address
from server.serve import prepare, remember


def push(fleet: Fleet, name: str, number: int) -> None:
    offer = pb.Offer(key=pb.TaskKey(run="idle", step=number, agent=name, kind=pb.EVALUATE))
    begun = time.monotonic_ns()
    if not fleet.offer(offer):
        sys.exit(f"{name} is not connected")
    sys.stdout.write(f"{name} pushed {begun}\n")
    sys.stdout.flush()


async def serve(folder: Path) -> None:
    fleet, journal, blobs = Fleet(), Journal(folder), Blobs(folder / "blobs")
    intake = Intake(journal, blobs, fleet.tell)
    front = Front(fleet, intake, blobs, server_id=journal.server_id, remember=remember(journal))
    (address,) = front.listen([Address("127.0.0.1", 0)], None)
    await front.start()
    sys.stdout.write(f"{address} serving 0\n")
    sys.stdout.flush()
    loop, number = asyncio.get_running_loop(), 0
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        for name in line.split():
            number += 1
            push(fleet, name, number)
    await front.drain(0.0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--state-dir", type=Path, required=True)
    given = parser.parse_args()
    prepare(given.state_dir)
    asyncio.run(serve(given.state_dir))
