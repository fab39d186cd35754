"""The federation's front: a grpc.aio server whose handlers only move bytes.

Methods of the data plane have no serialisers: what the handlers get and give is what travels.
"""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from common import __version__, pb
from common.errors import EXIT_ADDRESS, ConfigError
from server.calls import Context, refuse
from server.downloads import Blobs, Downloads
from server.fleet import Fleet
from server.listen import Address, Tls, check_free, credentials
from server.streams import PROTOCOL, Streams
from server.uploads import Intake, Uploads

log = logging.getLogger(__name__)

FEDERATION = "edgefed.v1.Federation"
OPERATIONS = "edgefed.v1.Operations"
MESSAGE_BYTES = 4 << 20  # a part has at most 1 MiB; a header with a long record may have more


@dataclass(frozen=True)
class FrontOptions:
    """What a link or a machine may make one change."""

    window_bytes: int = 128 << 10  # HTTP/2 lookahead of one stream: bandwidth x delay, here of 1 Gbit/s over 1 ms
    part_bytes: int = 512 << 10  # the flat top of throughput on loopback is 256 KiB to 1 MiB
    in_flight_bytes: int = 8 << 20  # of all uploads, and again of all downloads
    uploads: int = 4  # that read ahead at a time
    stall_s: float = 60.0  # a transfer without a byte for this long is ended; one that moves never is
    reflection: bool = False


class Front:
    """Starts, serves and drains; for one event loop."""

    def __init__(
        self,
        fleet: Fleet,
        intake: Intake,
        blobs: Blobs,
        *,
        server_id: str,
        remember: Callable[[pb.Hello], None],
        options: FrontOptions | None = None,
    ) -> None:
        options = FrontOptions() if options is None else options
        self._fleet = fleet
        self._options = options
        self._intake_pool = ThreadPoolExecutor(options.uploads + 1, thread_name_prefix="intake")
        self._blobs_pool = ThreadPoolExecutor(2, thread_name_prefix="blobs")
        share = {"budget_bytes": options.in_flight_bytes, "part_bytes": options.part_bytes}
        self.uploads = Uploads(intake, self._intake_pool, places=options.uploads, **share)
        self.downloads = Downloads(blobs, fleet, self._blobs_pool, **share)
        self.uploads.stall_s = self.downloads.stall_s = options.stall_s
        welcome = pb.Welcome(server=server_id, version=__version__, protocol=PROTOCOL)
        welcome.part_bytes = options.part_bytes
        self.streams = Streams(fleet, self.downloads, self._blobs_pool, remember=remember, welcome=welcome)
        self.health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # the stubs lack it
        self.server = grpc.aio.server(options=channel_options(options))
        self.server.add_generic_rpc_handlers((self._methods(),))
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)

    def _methods(self) -> "grpc.GenericRpcHandler[bytes, bytes]":
        return grpc.method_handlers_generic_handler(
            FEDERATION,
            {
                "Join": grpc.stream_stream_rpc_method_handler(self.streams.join),
                "Fetch": grpc.unary_stream_rpc_method_handler(self.downloads.fetch),
                "Submit": grpc.stream_stream_rpc_method_handler(self.uploads.submit),
                "Enroll": grpc.unary_unary_rpc_method_handler(_enroll),
            },
        )

    def listen(self, addresses: Sequence[Address], tls: Tls | None) -> list[Address]:
        """Bind; the addresses with the ports that were taken.

        Raises:
            ConfigError: an address or a certificate cannot be used.
        """
        secured = None if tls is None else credentials(tls)
        taken = []
        for address in addresses:
            check_free(address)
            try:
                if secured is None:
                    port = self.server.add_insecure_port(str(address))
                else:
                    port = self.server.add_secure_port(str(address), secured)
            except RuntimeError as error:
                raise ConfigError(f"cannot listen on {address}: {error}", exit_code=EXIT_ADDRESS) from error
            taken.append(Address(address.host, port))
        return taken

    async def start(self) -> None:
        if self._options.reflection:
            from grpc_reflection.v1alpha import reflection

            names = (FEDERATION, OPERATIONS, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self.server)
        await self.server.start()
        await self.health.set(FEDERATION, health_pb2.HealthCheckResponse.SERVING)

    async def drain(self, grace_s: float, come_back_s: float = 5.0) -> None:
        """Say that this server is going, send the hosts away, let transfers under way finish, and stop."""
        await self.health.enter_graceful_shutdown()
        self._fleet.send_away(come_back_s, come_back_s, "the server is stopping; come back in a moment")
        await self.server.stop(max(grace_s, 1.0))  # the hosts have to hear it in any case
        self._intake_pool.shutdown()
        self._blobs_pool.shutdown()


def channel_options(options: FrontOptions) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 0),  # else a second server on the port starts silently and they split the agents
        ("grpc.http2.bdp_probe", 0),  # the window that it grows holds 4 to 8 MB an upload
        ("grpc.http2.lookahead_bytes", options.window_bytes),
        ("grpc.max_receive_message_length", MESSAGE_BYTES),
        ("grpc.max_send_message_length", MESSAGE_BYTES),
        # agents ping every 30 to 60 s; half of that is what a jittered ping may look like
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.keepalive_time_ms", 60_000),  # finds hosts that vanished without a word
        ("grpc.keepalive_timeout_ms", 20_000),
    ]


async def _enroll(_message: bytes, context: Context) -> bytes:
    text = "this server does not enrol devices; give the agent a certificate by files"
    await refuse(context, grpc.StatusCode.UNIMPLEMENTED, text)
