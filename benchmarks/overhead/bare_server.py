"""A gRPC server with nothing in it but bytes: what ours is measured against. Runs as a process of its own.

Ping answers what it gets. Up takes a stream and throws it away; UpDurable hashes it, writes it and calls fsync, in a
thread pool as our server does. Down sends the same part again and again.
"""

import argparse
import asyncio
import hashlib
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from server.front import FrontOptions, channel_options

SERVICE = "bare"
Context = grpc.aio.ServicerContext[bytes, bytes]


class Handlers:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pool = ThreadPoolExecutor(4)

    async def ping(self, message: bytes, _: Context) -> bytes:
        return message

    async def up(self, parts: AsyncIterator[bytes], _: Context) -> bytes:
        size = 0
        async for part in parts:
            size += len(part)
        return str(size).encode()

    async def up_durable(self, parts: AsyncIterator[bytes], _: Context) -> bytes:
        digest, loop = hashlib.sha256(), asyncio.get_running_loop()
        with tempfile.TemporaryFile(dir=self.folder, buffering=0) as file:

            def keep(part: bytes) -> None:
                digest.update(part)
                file.write(part)

            before = None  # one part is kept while the next is received
            async for part in parts:
                if before is not None:
                    await before
                before = loop.run_in_executor(self.pool, keep, part)
            if before is not None:
                await before
            await loop.run_in_executor(self.pool, os.fsync, file.fileno())
        return digest.digest()

    async def down(self, request: bytes, _: Context) -> AsyncIterator[bytes]:
        """`request` is "TOTAL PART", in bytes."""
        total, size = (int(word) for word in request.split())
        part = bytes(size)
        for _start in range(0, total, size):
            yield part


def handler(handlers: Handlers) -> "grpc.GenericRpcHandler[bytes, bytes]":
    methods: dict[str, Any] = {  # Any: the four kinds of handler share no type
        "Ping": grpc.unary_unary_rpc_method_handler(handlers.ping),
        "Up": grpc.stream_unary_rpc_method_handler(handlers.up),
        "UpDurable": grpc.stream_unary_rpc_method_handler(handlers.up_durable),
        "Down": grpc.unary_stream_rpc_method_handler(handlers.down),
    }
    return grpc.method_handlers_generic_handler(SERVICE, methods)


async def serve(address: str, folder: Path) -> None:
    server = grpc.aio.server(options=channel_options(FrontOptions()))  # our own options: the same link
    server.add_generic_rpc_handlers((handler(Handlers(folder)),))
    server.add_insecure_port(address)
    await server.start()
    done = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, done.set)
    await done.wait()
    await server.stop(1.0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args()
    sys.exit(asyncio.run(serve(given.listen, given.folder)))
