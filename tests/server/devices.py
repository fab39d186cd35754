"""Agents in memory for tests of the server: real messages, codec, intake and fleet; only the wire is left out.

Each host has a thread that answers its offers in order, as an agent does. `work` is arithmetic instead of training.
"""

import hashlib
import queue
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from common import methods, pb, runfile
from common.blobs import Blobs
from common.payloads import Weights
from common.wire import records
from server.fleet import Fleet
from server.intake import Intake, Upload

CLASSES = ("ant", "bee", "cat")
RUN = """
[run]
method = "fedavg"
rounds = 2
seed = 7
[model]
name = "linear"
input = "2x2x1"
[agents]
min = 2
deadline_s = 60
[evaluation]
every = 0
"""


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it, nothing is cleaned up by intent."""


@dataclass
class Device:
    """One agent on a host of its own."""

    name: str
    fleet: Fleet
    intake: Intake
    blobs: Blobs  # its own
    server_blobs: Blobs  # stands for Fetch
    classes: tuple[str, ...] = CLASSES
    named: bool = False
    tags: tuple[str, ...] = ()
    memory_step: int = -1
    n_samples: int = 10
    before_submit: Callable[["Device", pb.Offer, pb.RecordHeader], pb.RecordHeader | None] | None = None
    decline: Callable[["Device", pb.Offer], pb.Declined | None] | None = None
    offers: list[pb.Offer] = field(default_factory=list)
    receipts: list[pb.Receipt] = field(default_factory=list)
    claims: pb.DataFacts = field(default_factory=pb.DataFacts)  # what else it says of its data
    asked_parts: int = 0
    transfers: bool = True
    faults: list[BaseException] = field(default_factory=list)
    _events: "queue.SimpleQueue[pb.ServerEvent | None]" = field(default_factory=queue.SimpleQueue)
    _came: "queue.SimpleQueue[pb.Offer]" = field(default_factory=queue.SimpleQueue)
    _thread: threading.Thread | None = None

    def join(self) -> "Device":
        self._thread = threading.Thread(target=self._serve, name=f"device-{self.name}", daemon=True)
        self._thread.start()
        self.fleet.join(self.hello(), self)
        return self

    def hello(self) -> pb.Hello:
        facts = None if self.named else pb.DataFacts(n_train=self.n_samples)
        description = pb.AgentDescription(name=self.name, tags=self.tags, named_data=self.named, data=facts)
        device = pb.DeviceFacts(machine=f"board of {self.name}")
        return pb.Hello(host=self.name, instance=f"i-{self.name}", agents=[description], device=device)

    def leave(self) -> None:
        self.fleet.left(self.name, self)
        self._events.put(None)

    def push(self, event: pb.ServerEvent) -> None:
        self._events.put(event)

    def end(self, event: pb.ServerEvent) -> None:
        self._events.put(None)

    def offered(self, kind: "pb.TaskKind", timeout: float = 60.0) -> pb.Offer:
        """The next offer of that kind that has not been asked for here."""
        while (offer := self._came.get(timeout=timeout)).key.kind != kind:
            pass
        return offer

    def of_kind(self, kind: "pb.TaskKind") -> list[pb.Offer]:
        return [offer for offer in self.offers if offer.key.kind == kind]

    def _serve(self) -> None:
        while (event := self._events.get()) is not None:
            if event.HasField("offer"):
                self.offers.append(event.offer)
                try:
                    self._answer(event.offer)
                except BaseException as fault:  # noqa: BLE001 - kept for the test to look at
                    self.faults.append(fault)
                self._came.put(event.offer)

    def _answer(self, offer: pb.Offer) -> None:
        declined = self.decline(self, offer) if self.decline else None
        if declined is not None:
            declined.key.CopyFrom(offer.key)
            self.fleet.heard(self.name, pb.AgentEvent(declined=declined))
            return
        if offer.key.kind == pb.PREPARE:
            facts = pb.DataFacts(name=f"data of {self.name}", n_classes=len(self.classes), n_train=self.n_samples)
            facts.MergeFrom(self.claims)
            prepared = pb.Prepared(key=offer.key, data=facts, classes=self.classes)
            self.fleet.heard(self.name, pb.AgentEvent(prepared=prepared))
            return
        if offer.memory_step != self.memory_step and offer.merged_step != offer.memory_step:
            other = pb.Declined(key=offer.key, why=pb.OTHER_MEMORY, memory_step=self.memory_step)
            self.fleet.heard(self.name, pb.AgentEvent(declined=other))
            return
        self.fleet.heard(self.name, pb.AgentEvent(accepted=pb.Accepted(key=offer.key)))
        header: pb.RecordHeader | None = self.worked(offer)
        if self.before_submit is not None:
            header = self.before_submit(self, offer, header)
        if header is not None:
            self.submit(header)

    def worked(self, offer: pb.Offer) -> pb.RecordHeader:
        """The reply: the common weights, moved by a step that the agent's name and the round decide."""
        run = runfile.from_blob(self._fetched(offer.run))
        header = pb.RecordHeader(key=offer.key)
        header.report.MergeFrom(pb.ResourceReport(n_samples=self.n_samples, loss=0.5, wall_s=0.1))
        if offer.key.kind == pb.WORK:
            method: Any = methods.load(run.file.run.method)
            task = records.decode(method.Task, offer.task, lambda ref, _: self._fetched(ref), where="device")
            reply = method.Reply(moved(task.weights, self.name, offer.round), self.n_samples)
            spec = run.at(offer.round)
            record = records.encode(reply, lambda p: self.blobs.put(p, spec.encodings.up))
            header.record.CopyFrom(record)
        for moment in offer.moments:
            sums = {"accuracy": float(len(self.name) + offer.round), "loss": 1.0}
            header.evaluations.add(
                moment=moment, reading="model", label_space="all", split="test", n=self.n_samples, sums=sums
            )
        return header

    def submit(self, header: pb.RecordHeader) -> pb.Receipt:
        opened = self.intake.open(header)
        receipt = self._upload(opened, header) if isinstance(opened, Upload) else opened
        self.receipts.append(receipt)
        if receipt.verdict == pb.ACCEPTED and self.transfers:
            self.report_transfer(header.key)
        return receipt

    def report_transfer(self, key: pb.TaskKey) -> None:
        report = pb.TransferReport(key=key, bytes_up=100, bytes_down=50)
        self.fleet.heard(self.name, pb.AgentEvent(transfer=report))

    def _upload(self, upload: Upload, header: pb.RecordHeader) -> pb.Receipt:
        try:
            for ref, offset in zip(header.record.payloads, upload.offsets, strict=True):
                if offset < ref.size:
                    self.asked_parts += 1
                    for part in self.blobs.parts(ref.sha256, offset, 1024):
                        upload.feed(part)
        except BaseException:
            upload.abandon()
            raise
        return upload.close()

    def _fetched(self, ref: pb.PayloadRef) -> Any:
        if not self.fleet.may_fetch(self.name, ref.sha256):
            raise PermissionError(f"{self.name} was not offered {ref.sha256.hex()}")
        with self.blobs.receive(ref) as receiver:
            if receiver.offset < ref.size:
                for part in self.server_blobs.parts(ref.sha256, receiver.offset):
                    receiver.feed(part)
            receiver.finish()
        return self.blobs.open(ref)


def moved(weights: Weights, name: str, round_number: int) -> Weights:
    seed = int.from_bytes(hashlib.sha256(f"{name} {round_number}".encode()).digest()[:4], "little")
    rng = np.random.default_rng(seed)
    return Weights({n: a + rng.standard_normal(a.shape).astype(np.float32) for n, a in weights.items()}, weights.kinds)


def devices(
    names: Iterable[str], fleet: Fleet, intake: Intake, server_blobs: Blobs, folder: Path, **options: Any
) -> dict[str, Device]:
    made = {}
    for name in names:
        own = Blobs(folder / f"device-{name}", durable=False)
        made[name] = Device(name, fleet, intake, own, server_blobs, **options)
    return made
