"""The way from an operator's command to the server: the Unix socket, or TCP with an operator's certificate."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from common.errors import EXIT_IDENTITY, EXIT_REFUSED, ConfigError, FederationError, LinkLost, LocalFault, RemoteFault
from server.operations import LOCAL_MESSAGE_BYTES, SERVICE, socket_path

ENDED = ("Cancelling all calls", "Socket closed", "Connection reset")  # a server that stops says one of these


class Asking:
    """`where` is the server, and `hint` what to look at when nobody answers there."""

    def __init__(self, channel: grpc.Channel, where: str, hint: str, timeout_s: float) -> None:
        self._channel = channel
        self._where = where
        self._hint = hint
        self._timeout_s = timeout_s

    def ask(self, method: str, request: Any, reply: Any) -> Any:  # Any: generated messages
        call = self._channel.unary_unary(
            f"/{SERVICE}/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=reply.FromString,
        )
        try:
            return call(request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            raise self._fault(error) from error

    def stream(self, method: str, request: Any, reply: Any) -> Iterator[Any]:
        call = self._channel.unary_stream(
            f"/{SERVICE}/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=reply.FromString,
        )
        try:
            yield from call(request)
        except grpc.RpcError as error:
            raise self._fault(error) from error

    def _fault(self, error: grpc.RpcError) -> FederationError:
        text = error.details() or "no reason given"
        match error.code():
            case grpc.StatusCode.UNAVAILABLE if "ermission denied" in text:
                return ConfigError(f"{self._where} belongs to another user; ask as that user", exit_code=EXIT_REFUSED)
            case grpc.StatusCode.UNAVAILABLE if "connect" in text:
                return LinkLost(f"no server answers at {self._where}; {self._hint} ({text})")
            case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED if any(end in text for end in ENDED):
                return LinkLost(f"the server at {self._where} ended; its runs go on when it is started again")
            case grpc.StatusCode.UNAVAILABLE:
                return LinkLost(text)
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                return LinkLost(f"{self._where} gave no answer within {self._timeout_s:g} s; give more with --timeout")
            case grpc.StatusCode.FAILED_PRECONDITION | grpc.StatusCode.NOT_FOUND:
                return ConfigError(text)
            case grpc.StatusCode.INTERNAL:
                return LocalFault(text)
            case grpc.StatusCode.RESOURCE_EXHAUSTED if "larger than max" in text:
                return RemoteFault(
                    f"what was sent is too large for --server; use the socket on the server itself: {text}"
                )
            case grpc.StatusCode.UNAUTHENTICATED | grpc.StatusCode.PERMISSION_DENIED:
                return RemoteFault(text)
            case _:
                return RemoteFault(f"{self._where} answered {error.code().name}: {text}")


@contextmanager
def connect(arguments: argparse.Namespace) -> Iterator[Asking]:
    options = [
        ("grpc.max_receive_message_length", LOCAL_MESSAGE_BYTES),
        ("grpc.max_send_message_length", LOCAL_MESSAGE_BYTES),
        ("grpc.enable_retries", 0),
    ]
    if arguments.server is None:
        where, hint = str(socket_path(arguments.state_dir)), "is it running, and is this its state folder?"
        if not Path(where).exists():
            raise LinkLost(f"no server runs on the state folder {arguments.state_dir}; give its own with --state-dir")
        channel = grpc.insecure_channel(f"unix:{where}", options)
    else:
        where = arguments.server
        hint = (
            "is it running, is --server its address, and has its certificate that name and the authority of --tls-ca?"
        )
        if arguments.tls_name:
            options.append(("grpc.ssl_target_name_override", arguments.tls_name))
        channel = grpc.secure_channel(where, _credentials(arguments), options)
    with channel:
        yield Asking(channel, where, hint, arguments.timeout)


def _credentials(arguments: argparse.Namespace) -> grpc.ChannelCredentials:
    files = {"--tls-ca": arguments.tls_ca, "--tls-key": arguments.tls_key, "--tls-cert": arguments.tls_cert}
    missing = [option for option, path in files.items() if path is None]
    if missing:
        raise ConfigError(
            f"--server needs an operator's certificate: give {', '.join(missing)}, or leave --server out and use the"
            " socket in the state folder",
            exit_code=EXIT_IDENTITY,
        )
    texts = []
    for option, path in files.items():
        try:
            texts.append(path.read_bytes())
        except OSError as error:
            raise ConfigError(f"{option} {path}: {error.strerror}", exit_code=EXIT_IDENTITY) from error
    return grpc.ssl_channel_credentials(*texts)
