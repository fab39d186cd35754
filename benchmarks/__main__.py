"""fed-bench: experiments on a federation of real processes, and reports of what they cost."""

import argparse
import os
import sys
from pathlib import Path

from benchmarks import ONE_THREAD, PAGES
from common import __version__
from common.errors import EXIT_CONFIG, EXIT_INTERRUPTED, FederationError

EXTRA = ("rich", "matplotlib", "sklearn")
EPILOG = """examples:
  fed-bench quickstart                                    a real federation on this machine, about half a minute
  fed-bench run fashion_mnist_fedavg --out out/fmnist     an experiment that is shipped, by name
  fed-bench run mine.toml --set run.rounds=5 --seeds 1,2  your own, shorter, with two seeds; resumes when run again
  fed-bench run fedobp_age --kept docs/experiments        what that folder has not yet; condense puts it there
  fed-bench run mine.toml --agents external --listen 0.0.0.0:8443 --insecure
                                                          prints the edge-agent command for each device, and waits
  fed-bench table out/fmnist > table.md                   Markdown, of one or more output folders
  fed-bench partition quickstart --out partition.png      how the data are parted among the agents
  fed-bench features prompts_caltech101 --out f.png       image features before and after training, with two numbers
  fed-bench overhead --out out/overhead                   the wire and the round, beside bare gRPC
  fed-bench condense out/fmnist --out docs/experiments    results made small enough to be kept with the code
  fed-bench page fedobp                                   docs/experiments/fedobp.md from the JSON beside it

exit codes:
  0 all runs ended well     2 usage           10 run file or settings     11 cannot listen   12 certificates
  13 state folder           14 data           15 the server refused       20 fault of this program or its disk
  30 agents did not join    40 a run failed or was stopped               130 interrupted; run again to go on
"""


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        return _dispatch(args)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in EXTRA:
            raise
        print(
            f"fed-bench: {error.name} is not installed; fed-bench needs: pip install 'edgefed[bench]'", file=sys.stderr
        )
        return EXIT_CONFIG
    except FederationError as error:
        print(f"fed-bench: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("fed-bench: interrupted; what is finished is kept, run the same command again to go on", file=sys.stderr)
        return EXIT_INTERRUPTED


def _dispatch(args: argparse.Namespace) -> int:
    os.environ.update(ONE_THREAD)  # before numpy and torch are loaded: what is estimated here is what a fleet does
    from benchmarks import commands, fleet, keeping  # rich and matplotlib load here, not for --help
    from benchmarks.commands import Devices, Output, Which

    with fleet.ended_by_signals():
        match args.command:
            case "quickstart":
                return commands.quickstart(Output(args.out, args.json), everything=args.all)
            case "run":
                devices = Devices(args.agents == "external", args.listen, args.processes, _tls(args))
                changes = commands.changes(args.set)
                which = Which(tuple(args.row), args.seeds, args.kept)
                return commands.run(args.experiment, Output(args.out, args.json), changes, which, devices)
            case "table":
                return commands.show_table(args.folder, as_json=args.json)
            case "plot":
                return commands.draw_plots(args.folder)
            case "partition":
                return commands.draw_partition(args.experiment, args.out, commands.changes(args.set))
            case "features":
                return commands.draw_features(args.experiment, args.row, args.out, commands.changes(args.set))
            case "condense":
                return keeping.condense(args.folder, args.out)
            case "page":
                return keeping.write_page(args.name, args.folder)
            case "theory":
                changes = commands.changes(args.set)
                return keeping.theory(args.experiment, args.out, changes, rounds=args.rounds, n_agents=args.agents)
            case "scoring":
                return keeping.scoring(args.out)
            case _:
                from benchmarks.overhead import report

                return report.run(Output(args.out, args.json), only=args.only, quick=args.quick)


def _tls(args: argparse.Namespace) -> tuple[str, ...]:
    """The server's flags about encryption; for a fleet on loopback none is needed."""
    given = [(f"--{name}", getattr(args, name.replace("-", "_"))) for name in ("tls-cert", "tls-key", "client-ca")]
    flags = tuple(text for flag, value in given if value is not None for text in (flag, str(value)))
    return flags or ("--insecure",) if args.insecure or args.agents == "local" else flags


def _top() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="fed-bench", description=__doc__, epilog=EPILOG, formatter_class=raw)
    parser.add_argument("--version", action="version", version=f"fed-bench {__version__}")
    return parser


def _parser() -> argparse.ArgumentParser:
    parser = _top()
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    quickstart = commands.add_parser("quickstart", help="a real federation on this machine, about half a minute")
    quickstart.add_argument("--all", action="store_true", help="also every other method that this build has")
    _output(quickstart, Path("out/quickstart"))

    run = commands.add_parser("run", help="all rows and seeds of an experiment; goes on where it stopped")
    run.add_argument("experiment", metavar="NAME|FILE.toml")
    _set(run)
    run.add_argument("--row", action="append", default=[], metavar="LABEL", help="this row alone; may be repeated")
    run.add_argument("--seeds", type=_seeds, default=(), metavar="1,2,3", help="instead of those in the file")
    run.add_argument("--kept", type=Path, metavar="DIR", help="of condensed results: what they have is not run again")
    run.add_argument("--processes", type=int, metavar="N", help="that carry the agents (default: one each up to 8)")
    run.add_argument(
        "--agents", choices=("local", "external"), default="local", help="external: devices that you start"
    )
    run.add_argument("--listen", default="", metavar="HOST:PORT", help="address of the server (default: loopback)")
    run.add_argument("--insecure", action="store_true", help="external devices without TLS: a network you trust")
    for flag in ("--tls-cert", "--tls-key", "--client-ca"):
        run.add_argument(flag, type=Path, metavar="FILE", help="as of fed-server")
    _output(run, None)

    for name, text in (("table", "Markdown table of results"), ("plot", "plots of results, into their folder")):
        command = commands.add_parser(name, help=text)
        command.add_argument("folder", nargs="+", type=Path, metavar="DIR", help="output folder with a results.json")
        if name == "table":
            command.add_argument("--json", action="store_true", help="rows as JSON")

    partition = commands.add_parser("partition", help="picture of each agent's class histogram")
    partition.add_argument("experiment", metavar="NAME|FILE.toml")
    _set(partition)
    partition.add_argument("--out", type=Path, default=Path("partition.png"), metavar="FILE.png")

    _features(commands.add_parser("features", help="picture of image features before and after training, with numbers"))

    condense = commands.add_parser("condense", help="results made small enough to be kept with the code")
    condense.add_argument("folder", nargs="+", type=Path, metavar="DIR", help="output folder with a results.json")
    condense.add_argument("--out", type=Path, default=PAGES, metavar="DIR", help=f"for NAME.json (default: {PAGES})")

    page = commands.add_parser("page", help="a page of docs/experiments from the JSON beside it")
    page.add_argument("name", metavar="NAME", help="fedobp, …")
    page.add_argument("folder", nargs="?", type=Path, default=PAGES, metavar="DIR", help=f"(default: {PAGES})")

    theory = commands.add_parser("theory", help="FedOBP's theory: what losing entries costs, by score and otherwise")
    theory.add_argument("experiment", metavar="NAME|FILE.toml")
    theory.add_argument("--rounds", type=int, default=5, metavar="N", help="of FedAvg before it is measured")
    theory.add_argument("--agents", type=int, default=5, metavar="N", help="of the last round that are measured")
    _set(theory)
    theory.add_argument("--out", type=Path, default=Path("out/theory"), metavar="DIR")

    scoring = commands.add_parser("scoring", help="FedOBP's scoring on the server: time and memory")
    scoring.add_argument("--out", type=Path, default=Path("out/scoring"), metavar="DIR")

    overhead = commands.add_parser("overhead", help="the wire and the round, beside bare gRPC")
    overhead.add_argument("--only", choices=("round", "transfer", "memory", "idle"), help="one of its parts")
    overhead.add_argument("--quick", action="store_true", help="smaller sizes: a look, not a figure to quote")
    _output(overhead, Path("out/overhead"))
    return parser


def _features(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("experiment", metavar="NAME|FILE.toml")
    parser.add_argument("--row", default="ours", metavar="LABEL", help="one whose agents train an adapter")
    _set(parser)
    parser.add_argument("--out", type=Path, default=Path("features.png"), metavar="FILE.png")


def _output(parser: argparse.ArgumentParser, folder: Path | None) -> None:
    said = f"output folder (default: {folder or 'out/NAME'})"
    parser.add_argument("--out", type=Path, default=folder, metavar="DIR", help=said)
    parser.add_argument("--json", action="store_true", help="results as JSON on stdout, all else on stderr")


def _set(parser: argparse.ArgumentParser) -> None:
    said = "change the run file, as run.rounds=5 or data.alpha=0.5; may be repeated"
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=said)


def _seeds(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected whole numbers with commas between, got {text!r}") from error


if __name__ == "__main__":
    sys.exit(main())
