"""`python -m benchmarks.tower_memory onnx|torch ENCODER N`: a process that takes images through a tower, no more.

It prints its peak memory and its speed (images a CPU second) as JSON. Images are drawn at random, because neither
depends on what they show; nothing is imported that the tower does not need.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from common import encoders
from edge_client import image_tower
from edge_client.features import BATCH

Features = Callable[[NDArray[np.float32]], object]


def main(argv: Sequence[str]) -> int:
    kind, encoder, n_images = argv[0], argv[1], int(argv[2])
    features = _onnx(encoder) if kind == "onnx" else _torch(encoder)
    crop = encoders.preprocessing(encoder).crop
    pixels = np.random.default_rng(0).standard_normal((BATCH, 3, crop, crop)).astype(np.float32)
    features(pixels)  # what is set up at first use is no part of the speed
    begin = time.process_time()
    for _ in range(0, n_images, BATCH):
        features(pixels)
    seconds = time.process_time() - begin
    n_done = len(range(0, n_images, BATCH)) * BATCH
    print(json.dumps({"peak_bytes": peak_bytes(), "images_per_cpu_s": n_done / seconds}))
    return 0


def peak_bytes() -> int:
    """Of this process since it began; getrusage's number would be the parent's when that was larger."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:"))


def _onnx(encoder: str) -> Features:
    tower = image_tower.opened(encoder)
    return lambda pixels: tower(pixels, "global")


def _torch(encoder: str) -> Features:
    import torch

    torch.set_num_threads(1)
    tower = encoders.load(encoder).image_tower()

    def features(pixels: NDArray[np.float32]) -> object:
        with torch.no_grad():
            return tower(torch.from_numpy(pixels))[0]

    return features


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
