"""`python -m common.encoders.export ENCODER FILE.onnx`: the image tower, for onnxruntime; needs torch and onnxscript.

A device without torch takes the file as image_tower.onnx in the encoder's folder.
"""

import argparse
import io
import sys
import warnings
from contextlib import redirect_stdout
from pathlib import Path

from common import encoders, files
from common.errors import ConfigError, FederationError
from common.models import need_torch

OPSET = 18


def export(name: str, path: Path) -> None:
    """Input "pixels" (n, 3, crop, crop), outputs "global" and "dense"; n is free."""
    need_torch("exporting an image tower")
    import torch

    tower, crop = encoders.load(name).image_tower(), encoders.preprocessing(name).crop
    pixels = torch.zeros(2, 3, crop, crop)
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own, about its internals
            program = torch.onnx.export(
                tower,
                (pixels,),
                dynamo=True,
                opset_version=OPSET,
                input_names=["pixels"],
                output_names=["global", "dense"],
                dynamic_shapes={"pixels": {0: torch.export.Dim("n")}},
                verbose=False,
            )
    except ImportError as error:
        raise ConfigError(f"exporting an image tower needs edgefed[prompts]: {error}") from error
    if program is None:
        raise ConfigError(f"the image tower of encoder {name!r} could not be exported")
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_at_once(path, [program.model_proto.SerializeToString()])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m common.encoders.export", description=export.__doc__)
    parser.add_argument("encoder", help="folder, name under EDGEFED_MODELS, or hub repository")
    parser.add_argument("file", type=Path)
    asked = parser.parse_args()
    try:
        export(asked.encoder, asked.file)
    except FederationError as fault:
        sys.stderr.write(f"{fault}\n")
        return fault.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
