"""fed-server: the command line. Nothing heavy is imported before the arguments are known."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from common import __version__
from common.errors import EXIT_INTERRUPTED, EXIT_LOCAL, FederationError

COMMANDS = {
    "serve": "run the server (this is also what happens without a command)",
    "submit": "start the run of a file",
    "ls": "list runs",
    "show": "one run: its rounds and what they cost each agent",
    "watch": "follow a run until it ends",
    "stop": "stop a run; what it has reached stays",
    "agents": "who is there",
    "export": "write the result of a run to files",
}
EXIT_CODES = """exit codes:
  0 done   2 wrong arguments   10 run file or options   11 cannot listen there   12 certificates and keys
  13 state folder locked, full or of a newer version   15 the server said no   20 a fault in this program or its disk
  30 the server cannot be reached   40 the run failed or was stopped   130 interrupted
"""
EXAMPLES = """examples:
  fed-server                                             on this machine only, no certificates needed
  fed-server --listen '[::]:8470' --tls-cert server.pem --tls-key server.key --client-ca ca.pem
  fed-server submit run.toml --watch
  fed-server show quickstart --json
  fed-server export quickstart --out result/
"""


def main(argv: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if argv is None else argv)
    if not given or (given[0] not in COMMANDS and given[0] not in ("-h", "--help", "--version")):
        given = ["serve", *given]
    arguments = parser().parse_args(given)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # our own sentences say it better
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    try:
        return run(arguments)
    except FederationError as error:
        return complain(str(error), error.exit_code, as_json=arguments.json)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone: `fed-server ls | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_LOCAL


def run(arguments: argparse.Namespace) -> int:
    if arguments.command != "serve":
        from server import commands

        return commands.run(arguments)
    from server.front import FrontOptions
    from server.listen import parse_address, tls_from
    from server.serve import ServeOptions, serve

    logging.basicConfig(
        level=arguments.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr
    )
    front = FrontOptions(
        window_bytes=arguments.window << 10,
        part_bytes=arguments.part << 10,
        in_flight_bytes=arguments.in_flight << 20,
        uploads=arguments.uploads,
        stall_s=arguments.stall,
        reflection=arguments.reflection,
    )
    serve(
        ServeOptions(
            listen=[parse_address(text) for text in arguments.listen or ["127.0.0.1:8470"]],
            state_dir=arguments.state_dir,
            tls=tls_from(arguments.tls_cert, arguments.tls_key, arguments.client_ca),
            insecure=arguments.insecure,
            front=front,
            grace_s=arguments.grace,
            port_file=arguments.port_file,
            as_json=arguments.json,
        )
    )
    return 0


def complain(text: str, code: int, *, as_json: bool) -> int:
    print(json.dumps({"error": text, "exit_code": code}) if as_json else f"fed-server: {text}", file=sys.stderr)
    return code


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="fed-server",
        description="A federated-learning server: agents join it, it runs what is submitted to it.",
        epilog=EXAMPLES + "\n" + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"fed-server {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    made = {
        name: commands.add_parser(
            name, help=text, description=text, epilog=EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        for name, text in COMMANDS.items()
    }
    for command in made.values():
        command.add_argument("--state-dir", type=Path, default=default_state_dir(), help="default: %(default)s")
        command.add_argument("--json", action="store_true", help="for machines: JSON on standard output")
    _serve_options(made["serve"])
    for name, command in made.items():
        if name != "serve":
            _link_options(command)
    for name in ("show", "watch", "stop", "export"):
        several = "; 'table.*' for all with such a name" if name == "stop" else ""
        made[name].add_argument("run", metavar="RUN", help=f"its name, as `ls` shows it{several}")
    made["submit"].add_argument("file", type=Path, metavar="RUN.toml")
    made["submit"].add_argument("--name", default="", help="default: the method and a number, as fedavg-1")
    made["submit"].add_argument("--watch", action="store_true", help="follow it until it ends")
    made["show"].add_argument("--round", type=int, help="what this round cost each agent; default: all rounds, summed")
    made["watch"].add_argument("--from-round", type=int, default=0, help="show rounds from this one on again")
    made["export"].add_argument("--out", type=Path, help="folder; default: the run's name")
    return top


def _serve_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add(
        "--listen",
        action="append",
        metavar="HOST:PORT",
        help="may be repeated; port 0 takes a free one (127.0.0.1:8470)",
    )
    add("--tls-cert", type=Path, metavar="PEM", help="this server's certificate")
    add("--tls-key", type=Path, metavar="PEM", help="its key: ECDSA P-256 or RSA")
    add("--client-ca", type=Path, metavar="PEM", help="the authority that signs devices and operators")
    add("--insecure", action="store_true", help="serve in the clear to other machines: anyone there can join")
    add(
        "--window",
        type=_at_least(16),
        default=128,
        metavar="KIB",
        help="HTTP/2 window a stream; bandwidth x delay (128)",
    )
    add("--part", type=_at_least(4, 1000), default=512, metavar="KIB", help="largest slice of a payload (512)")
    add("--in-flight", type=_at_least(1), default=8, metavar="MIB", help="bytes of all uploads in memory (8)")
    add("--uploads", type=_at_least(1), default=4, metavar="N", help="uploads that read ahead at a time (4)")
    add("--stall", type=_seconds, default=60.0, metavar="S", help="end a transfer after this long without a byte (60)")
    add("--grace", type=_seconds, default=30.0, metavar="S", help="at SIGTERM, wait this long for uploads (30)")
    add("--reflection", action="store_true", help="let grpcurl and the like ask for the services")
    add("--port-file", type=Path, help="write the address that was taken into this file")
    add("--log-level", choices=("debug", "info", "warning", "error"), default="info")


def _link_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add(
        "--server",
        metavar="HOST:PORT",
        help="over TCP with an operator's certificate; default: the state folder's socket",
    )
    add("--tls-cert", type=Path, metavar="PEM", help="an operator's certificate, for --server")
    add("--tls-key", type=Path, metavar="PEM", help="its key")
    add("--tls-ca", type=Path, metavar="PEM", help="the authority that signed the server")
    add("--tls-name", help="the name in the server's certificate, when it is not the one in --server")
    add("--timeout", type=_seconds, default=30.0, metavar="S", help="for one answer (30)")


def default_state_dir() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "edgefed" / "server"


def _at_least(least: int, most: int = 1 << 20) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"expected {least} to {most}, got {value}")
        return value

    return number


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"expected a time above 0, got {text}")
    return value


if __name__ == "__main__":
    sys.exit(main())
