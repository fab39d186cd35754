"""`python -m benchmarks.imagenet`: torchvision's pre-trained ResNet as a backbone for [run] init.

Its weights expect pixels with ImageNet's mean and deviation taken out, and ours are in [0, 1]; so both are moved into
the first convolution and the running mean behind it. That is the same net, but for the zeros around the image, which
are black here and ImageNet's mean there.
"""

import argparse
import pickle  # noqa: TID251 - its error alone: torch reads weights only
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from common import models
from common.errors import EXIT_DATA, ConfigError, FederationError
from common.payloads import Array
from server.exporting import write_npz

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
EPILOG = """example: the upper line of ssl_flowers_intel_full
  python -m benchmarks.imagenet resnet50 resnet50_imagenet.npz                  downloads what is not in torch's cache
  python -m benchmarks.imagenet resnet50 resnet50_imagenet.npz --from FILE.pth  a state dict that is here already
"""


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        models.need_torch("reading torchvision's weights")
        weights = for_pixels(_loaded(args.net, args.weights))
        write_npz(args.to, weights)
    except FederationError as fault:
        print(f"imagenet: {fault}", file=sys.stderr)
        return fault.exit_code
    print(args.to)
    return 0


def for_pixels(state: Mapping[str, Array]) -> dict[str, Array]:
    """The backbone of a ResNet's state dict, without its head, for inputs in [0, 1]."""
    found = {name: np.asarray(array) for name, array in state.items() if not name.startswith("fc.")}
    kernel = found["conv1.weight"].astype(np.float64) / np.array(STD)[:, None, None]  # (out, 3, height, width)
    shift = (kernel * np.array(MEAN)[:, None, None]).sum((1, 2, 3))
    found["conv1.weight"] = kernel.astype(np.float32)
    found["bn1.running_mean"] = (found["bn1.running_mean"] + shift).astype(np.float32)
    return found


def _loaded(net: str, path: Path | None) -> dict[str, Array]:
    import torch
    import torchvision

    try:
        if path is None:
            state = torchvision.models.get_model(net, weights="DEFAULT").state_dict()
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
        first = str(error).partition("\n")[0]
        raise ConfigError(f"cannot read {path or f'weights of {net}'}: {first}", exit_code=EXIT_DATA) from error
    lost = [name for name in ("conv1.weight", "bn1.running_mean") if name not in state]
    if lost:
        raise ConfigError(f"{path or net} is no state dict of a ResNet: it has no tensor {lost[0]!r}")
    return {name: tensor.numpy() for name, tensor in state.items()}


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.imagenet", description=__doc__, epilog=EPILOG, formatter_class=raw
    )
    parser.add_argument("net", choices=("resnet18", "resnet50"))
    parser.add_argument("to", type=Path, metavar="BACKBONE.npz")
    parser.add_argument("--from", dest="weights", type=Path, metavar="FILE.pth", help="a state dict of torchvision's")
    return parser


if __name__ == "__main__":
    sys.exit(main())
