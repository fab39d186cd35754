"""What all handlers of calls share: who is calling, and how an error becomes a status."""

import asyncio
import errno
import logging
import sqlite3
from collections.abc import Callable
from concurrent.futures import Executor
from typing import NoReturn, TypeVar

import grpc
from google.protobuf.message import DecodeError
from grpc.aio import EOF as EOF  # type: ignore[attr-defined]  # the stubs lack it
from grpc.aio import AbortError, ServicerContext

from common.errors import ConfigError, FederationError, LinkLost, RemoteFault, UnknownName
from server import identity
from server.identity import Caller

log = logging.getLogger(__name__)

DETAILS = 2000  # characters of a status text: it travels in a header, and those are small
Context = ServicerContext[bytes, bytes]
T = TypeVar("T")


async def refuse(context: Context, code: grpc.StatusCode, text: str, retry_after_s: float | None = None) -> NoReturn:
    """End the call with that status and one sentence."""
    trailing = () if retry_after_s is None else (("retry-after-s", f"{retry_after_s:g}"),)
    await context.abort(code, text[:DETAILS], trailing)
    raise AssertionError("abort returns never")


async def identified(context: Context) -> Caller:
    """The caller by certificate; ends the call with UNAUTHENTICATED when its certificate will not do."""
    try:
        return identity.caller(context.auth_context())
    except RemoteFault as fault:
        await refuse(context, grpc.StatusCode.UNAUTHENTICATED, str(fault))


async def owner_of(context: Context, agent: str) -> str:
    """The host that the agent belongs to; ends the call with PERMISSION_DENIED when the caller is another one."""
    try:
        return identity.check_owner(await identified(context), agent)
    except RemoteFault as fault:
        await refuse(context, grpc.StatusCode.PERMISSION_DENIED, str(fault))


async def failed(context: Context, call: str, error: Exception) -> NoReturn:
    """End a call that an error has stopped: the peer's faults as such, ours as ours and logged once."""
    match error:
        case AbortError():  # it has a status already
            raise error
        case RemoteFault():
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        case DecodeError():
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, f"{call}: a message of another kind: {error}")
        case LinkLost():
            await refuse(context, grpc.StatusCode.UNAVAILABLE, str(error))
        case ConfigError() | UnknownName():
            await refuse(context, grpc.StatusCode.FAILED_PRECONDITION, str(error))
        case _ if is_disk_full(error):  # said so that the agent keeps its reply and comes again, however long it takes
            log.error("disk_full call=%s error=%s", call, error)
            text = "the server's disk is full; nothing was lost, try again when there is room"
            await refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, text, retry_after_s=60)
        case FederationError() | OSError():
            log.error("call_failed call=%s error=%s", call, error)
            await refuse(context, grpc.StatusCode.UNAVAILABLE, f"the server could not do this: {error}")
        case _:
            log.error("call_failed call=%s", call, exc_info=error)
            await refuse(context, grpc.StatusCode.INTERNAL, f"fault in the server: {type(error).__name__}: {error}")


def is_disk_full(error: BaseException) -> bool:
    """Whether it, or what led to it, is a full disk."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if isinstance(cause, sqlite3.Error) and getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            return True
        cause = cause.__cause__
    return False


async def in_pool(pool: Executor, call: Callable[..., T], *args: object) -> T:
    """Run it in a thread. When cancelled it still waits for the thread, so that no two work on one thing."""
    running = asyncio.get_running_loop().run_in_executor(pool, call, *args)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        if not running.cancelled() and (error := running.exception()) is not None:
            log.error("call_failed_after_its_end call=%s error=%s", call, error)
        raise


async def ended(task: "asyncio.Task[None] | asyncio.Task[list[bytes]]") -> None:
    """Cancel it and wait; what it raises is of no interest any more."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()
