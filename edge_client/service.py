"""The agent as a process: from its start to the signal that ends it."""

import logging
import os
import queue
import signal
import threading
from pathlib import Path
from types import FrameType

from common.meter import trim_heap
from edge_client import folder as state_folder
from edge_client.agent import Agent
from edge_client.certificate import Tls
from edge_client.executor import make_executor
from edge_client.link import Link, check_trust
from edge_client.setup import Wishes, host_name, setup

log = logging.getLogger(__name__)


def serve(wishes: Wishes, *, server: str, tls: Tls | None, insecure: bool, state: Path, workers: int) -> int:
    """Runs until SIGTERM or SIGINT; the exit code.

    Raises:
        ConfigError: the owner must change something before this can start.
    """
    stopping: queue.SimpleQueue[str | Exception] = queue.SimpleQueue()  # its put may be called by a signal handler

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.put(signal.Signals(number).name)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    check_trust(server, tls, insecure=insecure)
    with state_folder.opened(state) as folder:
        executor = make_executor(folder.blobs, workers=workers)
        try:
            wanted = setup(wishes, folder.instance, executor.n_tasks)
            agent = Agent(wanted, Link(server, host_name(wishes.name), tls), folder, executor, stopping.put)
            trim_heap()  # starting up took more than being there does
        except BaseException:
            executor.close()
            raise
        _in_thread(agent, stopping)
        reason = stopping.get()
        has_ended = agent.stop(str(reason))
        if isinstance(reason, Exception):
            raise reason
        log.info("ended state=%s", state)
        if not has_ended:  # a task in this process cannot be interrupted; all that matters is on the disk
            logging.shutdown()
            os._exit(0)
    return 0


def _in_thread(agent: Agent, stopping: "queue.SimpleQueue[str | Exception]") -> None:
    def run() -> None:
        try:
            agent.run()
        except Exception as fault:  # noqa: BLE001 - goes to the main thread, which raises it
            stopping.put(fault)

    threading.Thread(target=run, name="presence", daemon=True).start()
