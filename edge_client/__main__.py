"""edge-agent: keeps a device's agents at a fed-server's disposal. Nothing heavy is imported before it is needed."""

import argparse
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from common import __version__
from common.errors import EXIT_USAGE, ConfigError, FederationError

if TYPE_CHECKING:
    from edge_client.certificate import Tls
    from edge_client.setup import Wishes

EXAMPLES = """\
examples:
  edge-agent --data ~/photos                                  a server on this machine, one folder per class
  edge-agent --server fl.example.org:8470 --data photos.npz \\
      --tls-ca ca.pem --tls-cert device.pem --tls-key device.key
  edge-agent --data flowers=~/flowers --data scenes=~/scenes  two agents, HOST/flowers and HOST/scenes
  edge-agent --data named --agents 8 --workers 2              eight agents with parts of the run's own data set
  edge-agent doctor --server fl.example.org:8470 --data ~/photos --tls-ca ca.pem
  edge-agent predict --data ~/photos --run birds new.jpg ~/more   classes of new images, by this agent's model

exit codes:
  0 ended by its owner   2 usage   10 settings   11 address   12 certificates and keys
  13 state folder in use, full, or of a newer version   14 data   20 a fault of this program
  doctor: 0 when all is well, else that of the first line that failed (30: the server cannot be reached)

An agent never ends because of what a server answers: it says what is wrong and tries again.
"""


def main(arguments: list[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_intermixed_args(arguments)
    if options.files and options.command != "predict":
        parser.error(f"files go with predict, got {options.files[0]} with {options.command}")
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # children are started afresh, never forked
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what gRPC has to say arrives as a status
    from edge_client import logs

    logs.start(verbose=options.verbose, as_json=options.json)
    try:
        if options.command == "doctor":
            return _doctor(options)
        if options.command == "predict":
            return _predict(options)
        return _serve(options)
    except FederationError as fault:
        print(f"edge-agent: {fault}", file=sys.stderr)
        return fault.exit_code
    except KeyboardInterrupt:
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edge-agent",
        description="Keep this device's agents at a fed-server's disposal; its data stay here.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"edge-agent {__version__}")
    parser.add_argument(
        "command",
        nargs="?",
        choices=("run", "doctor", "predict"),
        default="run",
        help="run (default), look for what is wrong, or say what new images show",
    )
    parser.add_argument(
        "files", nargs="*", type=Path, metavar="FILE", help="predict: images, folders of them, or an .npz with x"
    )
    parser.add_argument("--server", default="localhost:8470", metavar="HOST:PORT", help="default: %(default)s")
    parser.add_argument(
        "--data",
        action="append",
        metavar="PATH",
        help="a folder with one sub-folder of images per class, an .npz, or 'named' (the run's own data set);"
        " NAME=PATH for several agents",
    )
    parser.add_argument("--name", help="of this host; default: the machine's")
    parser.add_argument("--tags", default="", metavar="A,B", help="runs may ask for agents with certain tags")
    parser.add_argument("--learner", choices=("auto", "torch", "onnx", "numpy"), default="auto")
    parser.add_argument("--state-dir", type=Path, metavar="PATH", help="default: in the user's state folder, by name")
    parser.add_argument(
        "--workers", type=_count, default=None, metavar="N", help="child processes, one task each; default: none"
    )
    parser.add_argument("--agents", type=_count, metavar="N", help="N agents, NAME/00, NAME/01, …, in this process")
    parser.add_argument("--share", action="append", choices=("counts",), default=[], help="tell samples per class")
    parser.add_argument(
        "--memory-budget", type=_bytes, metavar="SIZE", help="for one task, above the idle process: 512MB"
    )
    parser.add_argument("--time-budget", type=_seconds, metavar="SECONDS", help="for one task")
    parser.add_argument("--run", metavar="RUN", help="predict: whose model; default: of the run it worked on last")
    parser.add_argument("--top", type=_count, default=3, metavar="N", help="predict: so many classes; default: 3")
    tls = parser.add_argument_group("TLS", "needed unless the server is on this machine")
    tls.add_argument("--tls-ca", type=Path, metavar="FILE", help="certificate of the server's authority")
    tls.add_argument("--tls-cert", type=Path, metavar="FILE", help="this host's certificate")
    tls.add_argument("--tls-key", type=Path, metavar="FILE", help="its key")
    tls.add_argument("--tls-name", metavar="NAME", help="name in the server's certificate, when not the address")
    tls.add_argument("--insecure", action="store_true", help="no TLS to another machine: on trusted networks only")
    parser.add_argument("--json", action="store_true", help="log lines (doctor, predict: what they find) as JSON")
    parser.add_argument("-v", "--verbose", action="store_true")
    return parser


def _serve(options: argparse.Namespace) -> int:
    from edge_client import service

    wishes, tls = _wishes(options), _tls(options)
    return service.serve(
        wishes,
        server=options.server,
        tls=tls,
        insecure=options.insecure,
        state=_state_folder(options),
        workers=options.workers or 0,
    )


def _doctor(options: argparse.Namespace) -> int:
    from edge_client import doctor

    findings = doctor.examine(_wishes(options), server=options.server, tls=_tls(options), state=_state_folder(options))
    return doctor.tell(findings, as_json=options.json, write=print)


def _predict(options: argparse.Namespace) -> int:
    from edge_client import predict

    if not options.files:
        raise ConfigError("predict what? Give images, folders of them, or an .npz with x", exit_code=EXIT_USAGE)
    predicted = predict.predict(
        _wishes(options), state=_state_folder(options), run=options.run, files=options.files, top=options.top
    )
    predict.tell(predicted, as_json=options.json, write=print)
    return 0


def _wishes(options: argparse.Namespace) -> "Wishes":
    from edge_client.setup import Wishes

    if not options.data:
        raise ConfigError("give this agent its data with --data: a folder, an .npz, or 'named'")
    return Wishes(
        data=tuple(options.data),
        name=options.name,
        tags=tuple(tag for tag in options.tags.split(",") if tag),
        learner=options.learner,
        n_agents=options.agents,
        share=tuple(options.share),
        memory_budget_bytes=options.memory_budget,
        time_budget_s=options.time_budget,
    )


def _tls(options: argparse.Namespace) -> "Tls | None":
    from edge_client.certificate import Tls

    if options.tls_ca is None:
        for flag in ("tls_cert", "tls_key", "tls_name"):
            if getattr(options, flag) is not None:
                raise ConfigError(f"--{flag.replace('_', '-')} goes with --tls-ca, the server's authority")
        return None
    if (options.tls_cert is None) != (options.tls_key is None):
        raise ConfigError("--tls-cert and --tls-key go together")
    return Tls(options.tls_ca, options.tls_cert, options.tls_key, options.tls_name)


def _state_folder(options: argparse.Namespace) -> Path:
    """The one given; systemd's; or one per name in the user's state folder."""
    if options.state_dir is not None:
        return Path(options.state_dir)
    if given := os.environ.get("STATE_DIRECTORY"):
        return Path(given.partition(":")[0])
    from edge_client.setup import host_name

    home = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return home / "edgefed" / f"agent-{host_name(options.name)}"


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, got {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"expected seconds above nothing, got {text!r}")
    return seconds


def _bytes(text: str) -> int:
    units = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
    number = text.rstrip("KMGiBkmgb ")
    unit = text[len(number) :].strip().upper()
    try:
        size = int(float(number) * units[unit])
    except (ValueError, KeyError, OverflowError) as fault:
        raise argparse.ArgumentTypeError(f"expected a size such as 512MB or 2GiB, got {text!r}") from fault
    if size <= 0:
        raise argparse.ArgumentTypeError(f"expected a size above nothing, got {text!r}")
    return size


if __name__ == "__main__":
    sys.exit(main())
