"""A small TCP relay between agents and a server: counts bytes, slows them down, cuts connections."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

CHUNK = 16384


class Relay:
    """Listens on loopback; every connection is passed on to the server's port, opened anew each time."""

    def __init__(self, target: int, *, bytes_per_s: float = 0.0, delay_s: float = 0.0) -> None:
        self.bytes_up = 0
        self.bytes_down = 0
        self.bytes_per_s = bytes_per_s  # of all uploads together; 0: as fast as it goes
        self.delay_s = delay_s  # each way, per chunk in flight
        self._target = target
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._start(self._accept)

    def wait_for_upload(self, n_bytes: int, timeout_s: float = 30.0) -> None:
        """Until so many more bytes went towards the server."""
        goal, end = self.bytes_up + n_bytes, time.monotonic() + timeout_s
        while self.bytes_up < goal:
            assert time.monotonic() < end, f"only {self.bytes_up} of {goal} bytes went up"
            time.sleep(0.001)

    def cut(self) -> None:
        """End all connections without a goodbye."""
        with self._lock:
            for end in self._open:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Nothing of it is left: no thread, no socket."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # close alone would not wake who waits in accept
        self._threads[0].join()
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:  # the server is down: so is what stands before it
                near.close()
                continue
            with self._lock:
                self._open |= {near, far}
            self._start(self._connect, near, far)

    def _connect(self, near: socket.socket, far: socket.socket) -> None:
        """Both directions of one connection, until both have ended."""
        down = threading.Thread(target=self._pass_on, args=(far, near, False))
        down.start()
        self._pass_on(near, far, True)
        down.join()
        with self._lock:
            self._open -= {near, far}
        near.close()
        far.close()

    def _start(self, target: Callable[..., None], *arguments: socket.socket) -> None:
        thread = threading.Thread(target=target, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, is_up: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK):
                if self.delay_s:
                    time.sleep(self.delay_s)
                with self._lock:
                    if is_up:
                        self.bytes_up += len(data)
                    else:
                        self.bytes_down += len(data)
                if is_up and self.bytes_per_s:
                    time.sleep(len(data) / self.bytes_per_s)
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def relay(target: int, *, bytes_per_s: float = 0.0, delay_s: float = 0.0) -> Iterator[Relay]:
    between = Relay(target, bytes_per_s=bytes_per_s, delay_s=delay_s)
    try:
        yield between
    finally:
        between.close()
