"""`python -m edge_client.child BLOBS`: does the jobs that come in on standard input, until it closes.

Standard output carries frames only; whatever a library prints goes to standard error.
"""

import logging
import os
import queue
import sys
import threading
from pathlib import Path
from typing import IO

from common import pb
from common.blobs import Blobs
from edge_client import budget, frames
from edge_client.attempt import attempt
from edge_client.job import Job
from edge_client.workplace import Workplace


def main(blobs: Path) -> None:
    """Work until the parent closes the pipe; a parent that dies ends this process in the middle of a task."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    place = Workplace(Blobs(blobs))
    jobs: queue.SimpleQueue[tuple[Job, bool]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, jobs), name="listen", daemon=True).start()
    while True:
        job, isolated = jobs.get()

        def progress(phase: str, fraction: float) -> None:
            frames.write(answers, frames.PROGRESS, pb.Progress(phase=phase, fraction=fraction))

        with budget.kept(job, place):
            outcome = attempt(job, place, progress, isolated=isolated)
        frames.write_outcome(answers, outcome)


def _listen(pipe: IO[bytes], jobs: "queue.SimpleQueue[tuple[Job, bool]]") -> None:
    offer, memory = b"", None
    while (frame := frames.read(pipe)) is not None:
        kind, data = frame
        if kind == frames.OFFER:
            offer, memory = data, None
        elif kind == frames.MEMORY:
            memory = data
        else:
            jobs.put(frames.to_job(offer, memory, data))
    os._exit(0)  # nobody is there to hear of what may still be running


if __name__ == "__main__":
    main(Path(sys.argv[1]))
