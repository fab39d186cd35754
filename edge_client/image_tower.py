"""The frozen image tower on the device: an ONNX file and onnxruntime, no torch.

The file is image_tower.onnx in the encoder's folder, or in the cache; where it is in neither, a child process exports
it there, which needs torch once.
"""

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from common import encoders
from common.errors import ConfigError

Kind = Literal["global", "dense"]
Tower = Callable[[NDArray[np.float32], Kind], NDArray[np.float32]]
FILE = "image_tower.onnx"
CACHE_VARIABLE = "EDGEFED_CACHE"


def cache_folder() -> Path:
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "edgefed") / "features"


@functools.lru_cache(maxsize=1)
def opened(encoder: str) -> Tower:
    """The tower, loaded; kept until `close`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    threads = os.environ.get("EDGEFED_THREADS", "")
    if threads.isdecimal():
        options.intra_op_num_threads = int(threads)
    session = onnxruntime.InferenceSession(
        tower_file(encoder).read_bytes(), options, providers=["CPUExecutionProvider"]
    )

    def features(pixels: NDArray[np.float32], kind: Kind) -> NDArray[np.float32]:
        found: NDArray[np.float32] = session.run([kind], {"pixels": pixels})[0]
        return found

    return features


def close() -> None:
    """Frees the tower: features are all there, and it is not needed any more."""
    opened.cache_clear()


def tower_file(encoder: str) -> Path:
    """Where the ONNX file is; exported first when it is nowhere.

    Raises:
        ConfigError: it cannot be exported here.
    """
    if encoder != "tiny":
        beside = encoders.folder(encoder) / FILE
        if beside.is_file():
            return beside
    path = cache_folder() / f"{encoders.tower_key(encoder)[:32]}.onnx"
    if not path.is_file():
        command = [sys.executable, "-m", "common.encoders.export", encoder, str(path)]
        child = subprocess.run(command, capture_output=True, check=False)
        if child.returncode:
            said = child.stderr.decode("utf-8", "replace").strip().splitlines() or [f"exit code {child.returncode}"]
            raise ConfigError(
                f"the image tower of encoder {encoder!r} is not here as {FILE} and cannot be exported: {said[-1]}; "
                f"on a machine with edgefed[torch,prompts] run: python -m common.encoders.export ENCODER {FILE}, "
                f"and place the file in the encoder's folder",
                exit_code=child.returncode,
            )
    return path
