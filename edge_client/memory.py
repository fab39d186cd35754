"""What each agent keeps from step to step, and the rule by which a new Memory takes the place of the old one.

A finished task commits its Reply and its new Memory together, as `pending`, by one rename. The earlier Memory stays
as `held` until the outcome is known. Every offer names the last step of this agent that was merged, and by it the
pending Memory is promoted or dropped; purely local methods keep it whatever became of the reply.

Promotion is a rename, `pending` to `held`. A `pending` of a step that `held` has is over.
"""

import errno
import hashlib
import logging
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from common import pb
from common.files import fsync_folder, replace, write_at_once, write_durably

log = logging.getLogger(__name__)

NONE = -1  # the step of an agent that holds no memory
LONGEST_NAME = 200  # of a folder: file systems end at 255 bytes
LAST = "last"
Kept = TypeVar("Kept", pb.Pending, pb.LastTask)


class Memories:
    """Of all agents and runs, in one folder. Calls for one agent come from one thread at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._known: dict[Path, pb.Pending | None] = {}

    def held(self, run: str, agent: str) -> pb.HeldMemory | None:
        return self._held_at(self._place(run, agent))

    def pending(self, run: str, agent: str) -> pb.Pending | None:
        """What was committed and not yet settled."""
        return self._open_at(self._place(run, agent))

    def held_step(self, run: str, agent: str) -> int:
        held = self.held(run, agent)
        return NONE if held is None else held.step

    def commit(self, pending: pb.Pending) -> None:
        """Reply and Memory of one task, durable when this returns."""
        key = pending.reply.key
        self._write(self._place(key.run, key.agent) / "pending", pending)

    def settle(self, offer: pb.Offer, *, keep_refused: bool) -> None:
        """Promote or drop what is pending, by what the offer says of the outcome.

        What the server has never merged (it knows no step that late) belongs to another life of the run and goes.
        """
        run, agent = offer.key.run, offer.key.agent
        pending = self.pending(run, agent)
        if pending is not None:
            step = pending.reply.key.step
            if step == offer.merged_step:
                self._promote(run, agent, pending, step)
            elif step > offer.key.step:
                self._drop(run, agent, "pending")
            elif step < offer.merged_step or (step < offer.key.step and offer.key.kind == pb.WORK):
                self._refused(run, agent, pending, keep_refused)
        if self.held_step(run, agent) > offer.merged_step:
            if self.pending(run, agent) is None:  # an old one would come back to life
                self._drop(run, agent, "pending")
            self._drop(run, agent, "held")

    def close(self, run: str, agent: str, merged_step: int, *, keep_refused: bool) -> None:
        """Settle for good what a run has left that is over: its last merged step of this agent, or -1."""
        over = pb.TaskKey(run=run, agent=agent, step=2**62, kind=pb.WORK)
        self.settle(pb.Offer(key=over, merged_step=merged_step), keep_refused=keep_refused)

    def refused(self, run: str, agent: str, *, keep_refused: bool) -> None:
        """The server has refused the pending reply, or it came too late."""
        pending = self.pending(run, agent)
        if pending is not None:
            self._refused(run, agent, pending, keep_refused)

    def keep_last(self, last: pb.LastTask) -> None:
        """Not forced to the disk: a power cut leaves the one before, or none."""
        key = last.offer.key
        path = self._place(key.run, key.agent) / LAST
        path.parent.mkdir(parents=True, exist_ok=True)
        write_at_once(path, [last.SerializeToString(deterministic=True)])

    def last_tasks(self) -> Iterator[tuple[float, pb.LastTask]]:
        """Of every agent and run, with the time when it began (Unix seconds)."""
        for path in self._folder.glob(f"*/*/{LAST}"):
            last = _parsed(path, pb.LastTask)
            if last is not None:
                yield path.stat().st_mtime, last

    def drop_pending(self, run: str, agent: str) -> None:
        self._drop(run, agent, "pending")

    def drop_held(self, run: str, agent: str) -> None:
        """What it is made of is lost; the server hears that there is none."""
        self._drop(run, agent, "held")

    def records(self) -> Iterator[pb.Record]:
        """Every record that is kept: what it names must stay in Blobs."""
        for place in self._folder.glob("*/*"):
            held = self._held_at(place)
            pending = self._open_at(place)
            if held is not None:
                yield held.memory
            if pending is not None:
                yield pending.memory
                yield pending.reply.record

    def forget(self, before: float) -> None:
        """Remove what no task has touched since then (Unix seconds): nobody says when a run is over for ever."""
        for place in list(self._folder.glob("*/*")):
            if all(file.stat().st_mtime < before for file in place.iterdir()):
                log.info("memory_forgotten folder=%s", place)
                shutil.rmtree(place)

    def _refused(self, run: str, agent: str, pending: pb.Pending, keep_refused: bool) -> None:
        if keep_refused:  # under the step that the server knows: it counts merged ones only
            self._promote(run, agent, pending, self.held_step(run, agent))
            self._drop(run, agent, "pending")
        else:
            self._drop(run, agent, "pending")

    def _promote(self, run: str, agent: str, pending: pb.Pending, step: int) -> None:
        place = self._place(run, agent)
        if pending.reply.key.step != step:
            self._write(place / "held", pb.Pending(memory=pending.memory, held_step=step))
            return
        with self._lock:
            # No fsync: while the rename is not on the disk, `pending` is, and is promoted again. The next commit's
            # fsync of the folder makes both renames durable, in their order.
            replace(place / "pending", place / "held")
            self._known[place / "held"], self._known[place / "pending"] = pending, None

    def _open_at(self, place: Path) -> pb.Pending | None:
        pending, held = self._read(place / "pending"), self._held_at(place)
        is_over = pending is not None and held is not None and pending.reply.key.step <= held.step
        return None if is_over else pending

    def _place(self, run: str, agent: str) -> Path:
        return self._folder / _segment(run) / _segment(agent)

    def _held_at(self, place: Path) -> pb.HeldMemory | None:
        """What was promoted: the file is the pending one as it was, renamed."""
        kept = self._read(place / "held")
        if kept is None:
            return None
        step = kept.held_step if kept.HasField("held_step") else kept.reply.key.step
        return pb.HeldMemory(step=step, memory=kept.memory)

    def _read(self, path: Path) -> pb.Pending | None:
        with self._lock:
            if path not in self._known:
                self._known[path] = _parsed(path, pb.Pending)
            return self._known[path]

    def _write(self, path: Path, message: pb.Pending) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock:
            write_durably(path, [message.SerializeToString(deterministic=True)])
            self._known[path] = message

    def _drop(self, run: str, agent: str, name: str) -> None:
        path = self._place(run, agent) / name
        with self._lock:
            if path.exists():
                path.unlink()
                fsync_folder(path.parent)
            self._known[path] = None


class Archive:
    """Memories by server. A server that lost its state may have runs of the same names; they are not the same runs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._of: dict[str, Memories] = {}

    def of(self, server: str) -> Memories:
        """Those of the server with this id, which it tells when the agent joins."""
        return self._of.setdefault(server, Memories(self._folder / _segment(server)))

    def records(self) -> Iterator[pb.Record]:
        for memories in self._all():
            yield from memories.records()

    def last_tasks(self) -> list[pb.LastTask]:
        """Of every server, agent and run, the latest first."""
        found = [one for memories in self._all() for one in memories.last_tasks()]
        return [last for _, last in sorted(found, key=lambda one: one[0], reverse=True)]

    def forget(self, before: float) -> None:
        for memories in self._all():
            memories.forget(before)

    def _all(self) -> list[Memories]:
        known = {_segment(server): memories for server, memories in self._of.items()}
        return [known.get(place.name) or Memories(place) for place in sorted(self._folder.glob("*"))]


def _segment(name: str) -> str:
    """The name as one folder: quoted, never one that the file system reads as itself or its parent, never too long."""
    quoted = quote(name, safe="").replace(".", "%2E")
    return quoted if len(quoted) <= LONGEST_NAME else hashlib.sha256(name.encode()).hexdigest()


def _parsed(path: Path, kind: type[Kept]) -> Kept | None:
    """The message there; a file that is damaged, or that the disk cannot read any more, is put aside, and the server
    hears that this memory is missing.
    """
    try:
        return kind.FromString(path.read_bytes())
    except FileNotFoundError:
        return None
    except (pb.DecodeError, OSError) as fault:
        if isinstance(fault, OSError) and fault.errno != errno.EIO:
            raise
        aside = path.with_name(f"{path.name}.damaged")
        replace(path, aside)
        log.error("memory_damaged file=%s kept_as=%s", path, aside)
        return None
