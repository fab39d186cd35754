"""fed-server itself: what is opened at the start, in which order, and how it ends with nothing lost."""

import asyncio
import ctypes
import json
import logging
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from common import files, pb
from common.blobs import Blobs
from common.errors import EXIT_STATE, ConfigError
from server.fleet import Fleet
from server.front import Front, FrontOptions
from server.intake import Intake
from server.journal import Journal
from server.listen import Address, Tls, check_exposed
from server.operations import Operations, local_server
from server.runs import Runs

log = logging.getLogger(__name__)

_M_ARENA_MAX = -8  # of malloc.h
MANY_FILES = 1 << 16  # where there is no limit: some systems take no infinite one
UNFINISHED_KEPT_S = 86400.0  # what came of uploads that broke off: for so long their agents may go on there
TIDY_S = 3600.0
SEEN_S = 3600.0  # a host that says the same hello again is written down once an hour, not at every reconnect


@dataclass(frozen=True)
class ServeOptions:
    listen: Sequence[Address]
    state_dir: Path
    tls: Tls | None = None
    insecure: bool = False
    front: FrontOptions = field(default_factory=FrontOptions)
    grace_s: float = 30.0
    port_file: Path | None = None
    as_json: bool = False


def serve(options: ServeOptions) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        ConfigError: an address, a certificate or the state folder cannot be used.
    """
    check_exposed(options.listen, options.tls, insecure=options.insecure)
    few_arenas()
    many_files()
    prepare(options.state_dir)
    with ExitStack() as opened:
        journal = Journal(options.state_dir)
        opened.callback(journal.close)
        blobs = Blobs(options.state_dir / "blobs")
        fleet = Fleet()
        fleet.restore((pb.Hello.FromString(hello), seen_at) for _, _, hello, seen_at in journal.hosts())
        runs = Runs(journal, blobs, fleet)
        opened.callback(runs.close)
        asyncio.run(_serve(options, journal, blobs, fleet, runs))
    log.info("stopped state_dir=%s", options.state_dir)


async def _serve(options: ServeOptions, journal: Journal, blobs: Blobs, fleet: Fleet, runs: Runs) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop, stopping, loop)
    intake = Intake(journal, blobs, fleet.tell)
    front = Front(fleet, intake, blobs, server_id=journal.server_id, remember=remember(journal), options=options.front)
    operations = Operations(runs, fleet)
    front.server.add_generic_rpc_handlers((operations.methods(guarded=True),))
    taken = front.listen(options.listen, options.tls)
    local = local_server(operations, options.state_dir)
    await asyncio.to_thread(runs.start)
    await front.start()
    await local.start()
    tidying = asyncio.create_task(keep_tidy(blobs))
    try:
        _announce(options, taken)
        await stopping.wait()
    finally:
        tidying.cancel()
        log.info("draining grace_s=%g", options.grace_s)
        operations.end()
        await front.drain(options.grace_s)
        await local.stop(1.0)
        operations.close()


def prepare(state_dir: Path) -> None:
    """Make the state folder, for this user only.

    Raises:
        ConfigError: it cannot be made.
    """
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        (state_dir / "blobs" / "partial").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot use the state folder {state_dir}: {error.strerror}; choose another with --state-dir",
            exit_code=EXIT_STATE,
        ) from error


async def keep_tidy(blobs: Blobs) -> None:
    """Remove what uploads, writes and crashes have left unfinished, at once and then every hour."""
    while True:
        try:
            await asyncio.to_thread(blobs.tidy, time.time() - UNFINISHED_KEPT_S)
        except OSError as error:
            log.warning("not_tidied reason=%s", error)
        await asyncio.sleep(TIDY_S)


def remember(journal: Journal) -> Callable[[pb.Hello], None]:
    """Writes a host down when it is new, has changed, or was last written down an hour ago."""
    written: dict[str, tuple[bytes, float]] = {}

    def save(hello: pb.Hello) -> None:
        data, now = hello.SerializeToString(deterministic=True), time.time()
        before, at = written.get(hello.host, (b"", 0.0))
        if data != before or now - at > SEEN_S:
            journal.save_host(hello.host, hello.instance, data, now)
            written[hello.host] = (data, now)

    return save


def few_arenas() -> None:
    """Tell glibc to keep the memory of all threads in two arenas.

    Parts of uploads are made in one thread and freed in another. With an arena a thread, 32 uploads of 20 MB at once
    left 10 MB more in the process than with two; throughput was the same.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not on macOS or musl
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 2)


def many_files() -> None:
    """As many open files as this process may have: a connection is one, and so is a payload while it is mapped."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (MANY_FILES if most == resource.RLIM_INFINITY else most, most))


def _stop(stopping: asyncio.Event, loop: asyncio.AbstractEventLoop) -> None:
    stopping.set()
    for number in (signal.SIGTERM, signal.SIGINT):  # a second signal does not wait
        loop.remove_signal_handler(number)


def _announce(options: ServeOptions, taken: Sequence[Address]) -> None:
    names = [str(address) for address in taken]
    if options.port_file is not None:
        try:
            files.write_at_once(options.port_file, [f"{names[0]}\n".encode()])
        except OSError as error:
            raise ConfigError(f"cannot write --port-file {options.port_file}: {error.strerror}") from error
    if options.as_json:
        text = json.dumps({"listening": names[0], "addresses": names, "state_dir": str(options.state_dir)})
    else:
        how = "mutual TLS" if options.tls else "in the clear"
        text = f"fed-server listens on {', '.join(names)} ({how}), state in {options.state_dir}"
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
