"""`python -m benchmarks.backbone`: a pre-trained backbone as an ONNX graph, for devices without torch."""

import argparse
import sys
import tomllib
from pathlib import Path

import numpy as np

from common import files, models
from common.errors import EXIT_DATA, ConfigError, FederationError
from common.method import ModelSpec
from common.payloads import Array
from server.exporting import write_npz

EPILOG = """example: stage two of a run on boards that only have numpy and onnxruntime
  fed-server export pretrain --out result/           writes result/weights.npz
  python -m benchmarks.backbone result/weights.npz backbone.npz --model resnet10 --option width=16
                                                     writes it, prints the [run] and [model] of the second stage
"""


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        print(export(args.weights, args.to, ModelSpec(args.model, _options(args.option))), end="")
    except FederationError as fault:
        print(f"backbone: {fault}", file=sys.stderr)
        return fault.exit_code
    return 0


def export(weights: Path, to: Path, spec: ModelSpec) -> str:
    """Write the backbone as an .npz for [run] init, and beside it as .onnx; gives the sections of a run file for it."""
    models.options_of(spec)
    if to.suffix != ".npz":
        raise ConfigError(f"the backbone is written as .npz, and as .onnx beside it: expected NAME.npz, got {to}")
    models.need_torch("exporting a backbone")
    from common.nets import _export

    graph, dim = _export.exported(spec, _read(weights))
    files.write_at_once(to.with_suffix(".onnx"), [graph])
    write_npz(to, {models.GRAPH: np.frombuffer(graph, np.uint8)})
    shape = models.options_of(spec).input
    lines = ("[run]", 'method = "task_heads"', f'init = "{to}"', "", "[model]", f'name = "{models.EXPORTED}"')
    return "\n".join((*lines, f'input = "{shape}"', f"dim = {dim}", f"n_bytes = {len(graph)}", 'head = "agent"', ""))


def _read(path: Path) -> dict[str, Array]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read weights {path}: {error}", exit_code=EXIT_DATA) from error


def _options(pairs: list[str]) -> dict[str, int | float | str | bool]:
    found = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise ConfigError(f"--option takes NAME=VALUE, as in width=16, got {pair!r}")
        try:
            found[name] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            found[name] = text
    return found


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.backbone", description=__doc__, epilog=EPILOG, formatter_class=raw
    )
    parser.add_argument("weights", type=Path, metavar="WEIGHTS.npz", help="a run's exported result")
    parser.add_argument("to", type=Path, metavar="BACKBONE.npz")
    parser.add_argument("--model", required=True, help="the net that was trained")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="of the net, as in its run")
    return parser


if __name__ == "__main__":
    sys.exit(main())
