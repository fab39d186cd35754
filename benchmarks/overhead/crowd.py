"""Many hosts in one process, each with its own connection: idle ones, or ones that all upload at the same moment.

They speak the wire and train nothing, so that what is measured is the server. Every event is told on stdout, one a
line, with the time of the system-wide monotonic clock: NAME WHAT NANOSECONDS.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, get_args

import grpc
import numpy as np

from common import pb
from common.blobs import Blobs
from common.methods import fedavg
from common.payloads import Encoding, Weights
from common.wire import records
from edge_client.link import OPTIONS
from edge_client.setup import method_ids
from server.calls import EOF
from server.streams import PROTOCOL

CLASSES = tuple("0123456789")
JOINING = 16  # at a time: a listen queue is short


class Crowd:
    def __init__(self, server: str, n: int, folder: Path, n_features: int) -> None:
        self.server, self.n, self.n_features = server, n, n_features
        self.blobs = Blobs(folder, durable=False)
        self.gate = asyncio.Barrier(n)  # all uploads start together
        self.joining = asyncio.Semaphore(JOINING)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for i in range(self.n):
                group.create_task(self.host(f"crowd-{i:03d}"))

    async def host(self, name: str) -> None:
        options = [*OPTIONS, ("grpc.enable_http_proxy", 0)]  # OPTIONS give each channel a connection of its own
        async with grpc.aio.insecure_channel(self.server, options=options) as channel:
            async with self.joining:
                join: Any = channel.stream_stream("/edgefed.v1.Federation/Join", None, None)
                call = join()  # Any, because the stubs do not know a call that is written to
                await call.write(self.hello(name).SerializeToString())
                await call.read()  # welcome
                tell(name, "joined")
            while (data := await call.read()) is not EOF:
                now = time.monotonic_ns()
                event = pb.ServerEvent.FromString(data)
                if event.HasField("offer"):
                    tell(name, f"offer-{pb.TaskKind.Name(event.offer.key.kind)}", now)
                    answer = await self.answer(channel, event.offer)
                    if answer is not None:
                        await call.write(answer.SerializeToString())

    async def answer(self, channel: grpc.aio.Channel, offer: pb.Offer) -> pb.AgentEvent | None:
        key = offer.key
        if key.kind == pb.PREPARE and offer.run.size:
            data = pb.DataFacts(name="noise", n_classes=len(CLASSES), n_train=10, n_test=10)
            return pb.AgentEvent(prepared=pb.Prepared(key=key, data=data, classes=CLASSES))
        if key.kind != pb.WORK:
            return None
        record = await asyncio.to_thread(self.reply, key)
        await self.gate.wait()
        begun = time.monotonic_ns()
        await self.submit(channel, pb.RecordHeader(key=key, record=record))
        tell(key.agent, "uploaded", time.monotonic_ns() - begun)
        return pb.AgentEvent(transfer=pb.TransferReport(key=key))

    def reply(self, key: pb.TaskKey) -> pb.Record:
        """Weights of `linear` that no other agent and no other step has."""
        rng = np.random.default_rng([key.step, int(key.agent.rpartition("-")[2])])
        shapes = {"classifier.weight": (len(CLASSES), self.n_features), "classifier.bias": (len(CLASSES),)}
        weights = Weights({name: rng.random(shape, dtype=np.float32) for name, shape in shapes.items()})
        return records.encode(fedavg.Reply(weights, 10), self.blobs.put)

    async def submit(self, channel: grpc.aio.Channel, header: pb.RecordHeader) -> None:
        resumed: asyncio.Future[tuple[int, ...]] = asyncio.get_running_loop().create_future()

        async def parts() -> AsyncIterator[bytes]:
            yield pb.Part(header=header).SerializeToString()
            for ref, offset in zip(header.record.payloads, await resumed, strict=True):
                for part in self.blobs.parts(ref.sha256, offset, 512 << 10):
                    yield part

        async for data in channel.stream_stream("/edgefed.v1.Federation/Submit", None, None)(parts()):
            event = pb.SubmitEvent.FromString(data)
            if event.HasField("resume"):
                resumed.set_result(tuple(event.resume.offsets))
            elif event.receipt.verdict != pb.ACCEPTED:
                sys.exit(f"{header.key.agent}: {event.receipt.reason}")

    def hello(self, name: str) -> pb.AgentEvent:
        agent = pb.AgentDescription(name=name, data=pb.DataFacts(name="noise", n_classes=len(CLASSES), n_train=10))
        hello = pb.Hello(host=name, instance=name, protocol=PROTOCOL, version="overhead", learners=["numpy"])
        hello.methods["fedavg"] = method_ids()["fedavg"]
        hello.encodings.extend(get_args(Encoding))
        hello.agents.append(agent)
        return pb.AgentEvent(hello=hello)


def tell(name: str, what: str, at_ns: int | None = None) -> None:
    sys.stdout.write(f"{name} {what} {time.monotonic_ns() if at_ns is None else at_ns}\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", required=True)
    parser.add_argument("--hosts", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--features", type=int, default=99)
    given = parser.parse_args()
    crowd = Crowd(given.server, given.hosts, given.folder, given.features)
    asyncio.run(crowd.run())


if __name__ == "__main__":
    main()
