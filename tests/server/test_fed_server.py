"""The program itself: what it prints, how it starts, stops and fails."""

import asyncio
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from running_front import WAIT_S, Device, hello

from common.blobs import Blobs
from common.errors import EXIT_ADDRESS, EXIT_CONFIG, EXIT_IDENTITY, EXIT_STATE
from server import serve
from server.__main__ import COMMANDS, main
from tests.server.workshop import wait_for

PROGRAM = (sys.executable, "-m", "server")


@contextmanager
def server(state_dir: Path, *options: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A fed-server process, and the address that it printed."""
    command = [*PROGRAM, "--state-dir", str(state_dir), "--listen", "127.0.0.1:0", "--json", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate(timeout=WAIT_S)
        yield process, json.loads(line)["listening"]
    finally:
        process.kill()
        process.communicate(timeout=WAIT_S)


def run(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*PROGRAM, *words], capture_output=True, text=True, timeout=WAIT_S, check=False)


def test_starts_says_where_and_ends_well_at_sigterm(tmp_path: Path) -> None:
    with server(tmp_path / "s", "--port-file", str(tmp_path / "port")) as (process, address):
        assert (tmp_path / "port").read_text() == f"{address}\n"
        assert (tmp_path / "s").stat().st_mode & 0o777 == 0o700
        listed = run("agents", "--state-dir", str(tmp_path / "s"))
        assert (listed.returncode, listed.stdout) == (0, "no agents yet; start one with edge-agent\n")
        with grpc.insecure_channel(address) as channel:
            device = Device(channel, hello("pi"))
            device.next("welcome")
            process.send_signal(signal.SIGTERM)
            assert "the server is stopping" in device.next("come_back").reason
            assert device.end() is grpc.StatusCode.OK
        assert process.wait(WAIT_S) == 0


def test_killed_server_starts_again_and_remembers_its_hosts(tmp_path: Path) -> None:
    with server(tmp_path) as (process, address), grpc.insecure_channel(address) as channel:
        device = Device(channel, hello("pi", "pi/0", "pi/1"))
        device.next("welcome")
        process.kill()
        assert device.end() is grpc.StatusCode.UNAVAILABLE
    with server(tmp_path):
        reply = json.loads(run("agents", "--state-dir", str(tmp_path), "--json").stdout)
    assert [(agent["name"], agent["online"]) for agent in reply["agents"]] == [("pi/0", False), ("pi/1", False)]


def unfinished_files(blobs: Path, age_s: float) -> list[Path]:
    """As a server leaves them that is killed while an upload comes in and while it writes a payload."""
    digest = os.urandom(32).hex()
    left = [blobs / "partial" / f"{digest}-0123456789ab", blobs / f".{digest}.0123456789ab.tmp"]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
        os.utime(path, (time.time() - age_s,) * 2)
    return left


def test_what_a_killed_server_left_unfinished_goes_after_a_day(tmp_path: Path) -> None:
    old, new = (unfinished_files(tmp_path / "blobs", age_s) for age_s in (25 * 3600.0, 23 * 3600.0))
    with server(tmp_path):
        wait_for(lambda: not any(path.exists() for path in old))
        assert all(path.exists() for path in new)


def test_a_running_server_looks_for_unfinished_files_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs, tried = Blobs(tmp_path), []

    def tidy(before: float) -> None:
        tried.append(before)
        if len(tried) == 1:
            raise OSError(5, "Input/output error")
        Blobs.tidy(blobs, before)

    async def story() -> None:
        tidying = asyncio.create_task(serve.keep_tidy(blobs))
        old = unfinished_files(tmp_path, 25 * 3600.0)
        while any(path.exists() for path in old):
            assert not tidying.done()
            await asyncio.sleep(0.01)
        tidying.cancel()

    monkeypatch.setattr(serve, "TIDY_S", 0.01)
    monkeypatch.setattr(blobs, "tidy", tidy)
    asyncio.run(asyncio.wait_for(story(), WAIT_S))


def test_state_folder_in_use_by_another_server(tmp_path: Path) -> None:
    with server(tmp_path) as (process, _):
        second = run("--state-dir", str(tmp_path), "--listen", "127.0.0.1:0")
        assert second.returncode == EXIT_STATE
        assert second.stderr.startswith("fed-server: ")
        assert str(tmp_path) in second.stderr
        assert process.poll() is None
        assert run("ls", "--state-dir", str(tmp_path)).returncode == 0


def test_second_server_on_a_port_does_not_start(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        failed = run("--state-dir", str(tmp_path / "s"), "--listen", f"127.0.0.1:{port}")
    assert failed.returncode == EXIT_ADDRESS
    assert failed.stderr.splitlines()[-1] == (
        f"fed-server: cannot listen on 127.0.0.1:{port}: another program listens there already; stop it or give another"
        " port with --listen"
    )


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (["--listen", "0.0.0.0:0"], EXIT_IDENTITY, "can be reached from other machines"),
        (["--listen", "nonsense"], EXIT_ADDRESS, "expected HOST:PORT"),
        (["--tls-cert", "a.pem"], EXIT_IDENTITY, "missing: --tls-key, --client-ca"),
        (["--state-dir", "/dev/null/x"], EXIT_STATE, "cannot use the state folder"),
        (["--port-file", "/dev/null/x"], EXIT_CONFIG, "cannot write --port-file"),
    ],
)
def test_start_that_cannot_be_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: int, sentence: str
) -> None:
    assert main(["--state-dir", str(tmp_path), "--listen", "127.0.0.1:0", *options, "--json"]) == code
    *_, last = capsys.readouterr().err.splitlines()
    said = json.loads(last)
    assert (sentence in said["error"], said["exit_code"]) == (True, code)


@pytest.mark.parametrize("words", [["--no-such"], ["serve", "--uploads", "0"], ["submit"], ["show"], ["--grace", "-1"]])
def test_wrong_arguments_end_with_two(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(words)
    assert raised.value.code == 2
    assert "usage: fed-server" in capsys.readouterr().err


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from server.__main__ import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'grpc', 'numpy', 'google', 'torch', 'cryptography'} & set(sys.modules)))\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=WAIT_S, check=True)
    assert shown.stdout.splitlines()[-1] == "[]"
    assert all(command in shown.stdout for command in COMMANDS)
    assert "exit codes:" in shown.stdout
    assert "examples:" in shown.stdout


def test_server_with_tls_loads_no_torch_and_every_command_has_help() -> None:
    code = "import sys, server.serve, server.commands; print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=WAIT_S, check=True)
    assert shown.stdout == "False\n"
    for command in COMMANDS:
        with pytest.raises(SystemExit) as raised:
            main([command, "--help"])
        assert raised.value.code == 0


def test_output_cut_off_by_its_reader_is_no_traceback(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with server(tmp_path):
        cut = subprocess.run(
            [*PROGRAM, "ls", "--state-dir", str(tmp_path)],
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=WAIT_S,
            check=False,
        )
    os.close(writing)
    assert cut.stderr == b""


def test_a_second_signal_does_not_wait_for_the_grace_time(tmp_path: Path) -> None:
    gate: queue.SimpleQueue[None] = queue.SimpleQueue()

    def never() -> Iterator[bytes]:
        gate.get()
        yield b""

    with server(tmp_path, "--grace", "60") as (process, address), grpc.insecure_channel(address) as channel:
        call = channel.stream_stream("/edgefed.v1.Federation/Submit", None, None)(never())
        grpc.channel_ready_future(channel).result(WAIT_S)
        device = Device(channel, hello("pi"))
        device.next("welcome")  # the call before it has arrived too
        process.send_signal(signal.SIGTERM)
        device.next("come_back")
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == -signal.SIGTERM
        gate.put(None)
        call.cancel()
