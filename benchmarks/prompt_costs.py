"""`python -m benchmarks.prompt_costs [NAME]`: what a frozen encoder costs a device, and what spares it most of that.

Written to DIR/prompts_costs.json: seconds that a round spends on images without and with the cache of features, what
share of a training step the text tower has, the peak memory of a process with the ONNX tower and with the torch tower,
and bytes beside those of the encoder. One thread; run it on a machine that does nothing else.
"""

import argparse
import dataclasses
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from benchmarks import ONE_THREAD, experiment, host, in_memory, results
from common import class_texts, encoders, files, models, pb, prototypes, runfile, seeds
from common.encoders import Encoder
from common.errors import FederationError
from common.method import ModelSpec, Training
from common.run_sections import RunFile
from common.samples import Samples
from edge_client import image_tower, learners
from edge_client.data import opening
from edge_client.features import FeatureSource, feature_source
from edge_client.prepare import model_input

ROW = "ours"
THREADS = {**ONE_THREAD, "EDGEFED_THREADS": "1"}
N_STEPS, N_IMAGES = 12, 96


@dataclass(frozen=True)
class Images:
    """Seconds for the features of all agents' training and test images, as a round needs them.

    Without the cache: reading and preparing images, loading the tower, the tower. With it: reading and hashing images,
    features from disk.
    """

    n_images: int
    without_cache_s: float
    without_cache_cpu_s: float
    with_cache_s: float
    with_cache_cpu_s: float


@dataclass(frozen=True)
class Step:
    """Medians in CPU milliseconds, of one training step with prompt, adapter and class means; `n_tokens` of a text."""

    n_classes: int
    batch: int
    step_ms: float
    texts_ms: float  # the text tower's part, forward and backward
    uncut_ms: float  # the same on all positions of the tower
    n_tokens: int
    n_positions: int


@dataclass(frozen=True)
class Tower:
    peak_bytes: int
    images_per_cpu_s: float


@dataclass(frozen=True)
class Sizes:
    """Of arrays in float32, without what the wire adds."""

    encoder_parameters: int  # with the statistics of its batch norms
    encoder_bytes: int
    prompt_bytes: int
    mean_bytes: int  # of one class
    n_classes: int
    adapter_bytes: int  # stays on the device


@dataclass(frozen=True)
class Costs:
    experiment: str
    git: str
    cpu: str
    encoder: str
    images: Images
    step: Step
    onnx: Tower
    torch: Tower
    sizes: Sizes


def measured(name: str) -> Costs:
    stem, text = experiment.find(name)
    file = in_memory.row(runfile.parse(text, name), ROW)
    model = _model(file)
    encoder = str(models.options_of(model).encoder)
    with tempfile.TemporaryDirectory() as folder:  # a cache of its own, empty at first
        parts = _parts(file, model, Path(folder))
        images, most = _images(parts), max(parts, key=lambda part: len(part.train))
        x = dataclasses.replace(most.train, source=most.source)
        step = _step(models.with_classes(model, most.classes), x, file.optimiser.batch)
    return Costs(
        stem,
        host.commit(),
        str(host.facts().get("cpu", "")),
        encoder,
        images,
        step,
        _tower("onnx", encoder),
        _tower("torch", encoder),
        _sizes(encoder, model, x.n_classes),
    )


# ------------------------------------------------------------------ images


@dataclass(frozen=True)
class _Part:
    source: FeatureSource
    train: Samples
    test: Samples
    classes: tuple[str, ...]


def _parts(file: RunFile, model: ModelSpec, folder: Path) -> list[_Part]:
    """Of all agents, with features in that folder."""
    shape, n = model_input(model), experiment.n_agents(file)
    opened = [opening.open_part(file.data, pb.DataIndex(index=i, of=n), shape) for i in range(n)]
    sources = [dataclasses.replace(feature_source(d.train.source, model), folder=folder) for d in opened]
    return [_Part(source, d.train, d.test, d.classes) for source, d in zip(sources, opened, strict=True)]


def _images(parts: Sequence[_Part]) -> Images:
    """All agents one after the other, from an empty cache and again from the full one."""
    image_tower.tower_file(parts[0].source.encoder)  # exported before the clock runs
    image_tower.close()
    first, second = (_timed(parts) for _ in range(2))
    return Images(sum(len(part.train) + len(part.test) for part in parts), *first, *second)


def _timed(parts: Sequence[_Part]) -> tuple[float, float]:
    """Seconds, and CPU seconds."""
    begin, cpu = time.perf_counter(), time.process_time()
    for part in parts:
        for view in (part.train, part.test):
            part.source.read(view.positions)
    return round(time.perf_counter() - begin, 3), round(time.process_time() - cpu, 3)


# ------------------------------------------------------------------ a training step


def _step(spec: ModelSpec, x: Samples, batch: int) -> Step:
    x, n_classes = x.take(np.arange(min(batch, len(x)))), x.n_classes
    texts, n_tokens = _texts(spec, cut=True)
    uncut, n_positions = _texts(spec, cut=False)
    step_ms, texts_ms, uncut_ms = _medians_ms([_training_step(spec, x, n_classes), texts, uncut])
    return Step(n_classes, len(x), step_ms, texts_ms, uncut_ms, n_tokens, n_positions)


def _medians_ms(parts: Sequence[Callable[[], object]]) -> list[float]:
    """In turn, so that what slows the machine down for a while meets all of them; the first time sets up."""
    taken = [[_cpu_seconds(part) for part in parts] for _ in range(1 + N_STEPS)]
    return [round(1e3 * statistics.median(column), 2) for column in zip(*taken[1:], strict=True)]


def _training_step(spec: ModelSpec, x: Samples, n_classes: int) -> Callable[[], object]:
    varied, _ = models.varied(spec, n_classes, {"adapter": True})
    learner = learners.make("torch", varied, n_classes, terms=("prototypes",))
    weights, rng = learner.initial(seeds.generator(1, "costs")), seeds.generator(1, "noise")
    means = prototypes.class_means(learner.embed(weights, x), x.labels, prototypes.Privacy(), rng, unit=True)
    terms, one = prototypes.regulariser(means, 1.0), Training(optimiser="adamw", lr=0.005, batch=len(x), epochs=1)
    return lambda: learner.fit(weights, x, one, terms=terms, rng=seeds.generator(1, "order"))


class _Uncut:
    """An encoder whose texts keep all their positions."""

    is_causal = False

    def __init__(self, inner: Encoder) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:  # Any: whatever the encoder has
        return getattr(self._inner, name)


def _texts(spec: ModelSpec, *, cut: bool) -> tuple[Callable[[], object], int]:
    """The text tower alone for all classes, there and back, and the tokens of a text."""
    import torch

    from common.nets._texts import Spliced

    o = models.options_of(spec)
    encoder, spoken = encoders.load(o.encoder), class_texts.of(o.texts, o.template)
    asked = encoder if cut else cast(Encoder, _Uncut(encoder))
    texts = Spliced(asked, [f"{spoken.name(c)}." for c in o.classes], o.context)
    prompt = torch.zeros(1, o.context, encoder.facts.width, requires_grad=True)

    def there_and_back() -> None:
        encoder.text_features(*texts.behind(prompt)).sum().backward()  # type: ignore[no-untyped-call]

    return there_and_back, int(texts.behind(prompt)[0].shape[1])


# ------------------------------------------------------------------ memory and bytes


def _tower(kind: str, encoder: str) -> Tower:
    command = [sys.executable, "-m", "benchmarks.tower_memory", kind, encoder, str(N_IMAGES)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **THREADS})
    found = json.loads(done.stdout.splitlines()[-1])
    return Tower(found["peak_bytes"], round(found["images_per_cpu_s"], 1))


def _sizes(encoder: str, model: ModelSpec, n_classes: int) -> Sizes:
    facts = encoders.facts(encoder)
    specs = models.load(model, n_classes, objective="cross_entropy").parameters(adapter=True)
    sizes = {name: 4 * math.prod(spec.shape) for name, spec in specs.items()}
    adapter = sum(size for name, size in sizes.items() if name.startswith("adapter."))
    n = 0 if encoder == "tiny" else n_parameters(encoders.folder(encoder) / encoders.WEIGHTS)
    return Sizes(n, 4 * n, sizes["prompt.context"], 4 * facts.dim, n_classes, adapter)


def n_parameters(weights: Path) -> int:
    """Floating-point numbers of a safetensors file, from its header: 8 bytes of length, then JSON."""
    with weights.open("rb") as file:
        header: Mapping[str, Any] = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    tensors = (entry for name, entry in header.items() if name != "__metadata__")
    return sum(math.prod(tensor["shape"]) for tensor in tensors if "F" in tensor["dtype"])


def _model(file: RunFile) -> ModelSpec:
    return runfile.Run("costs", file, None, None).at(1).model


def _cpu_seconds(do: Callable[[], object]) -> float:
    begin = time.process_time()
    do()
    return time.process_time() - begin


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prompt_costs")
    parser.add_argument("experiment", nargs="?", default="prompts_caltech101", metavar="NAME|FILE.toml")
    parser.add_argument("--out", type=Path, default=Path("docs/experiments"), metavar="DIR")
    asked = parser.parse_args(argv)
    os.environ.update(THREADS)  # before torch is loaded
    try:
        found = measured(asked.experiment)
    except FederationError as error:
        print(f"prompt_costs: {error}", file=sys.stderr)
        return error.exit_code
    text = json.dumps(results.as_json(found), indent=1, allow_nan=False) + "\n"
    path = asked.out / "prompts_costs.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_durably(path, [text.encode()])
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
