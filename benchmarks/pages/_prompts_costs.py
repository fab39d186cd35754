"""Learned prompts, what they cost: bytes, images through the tower, the text tower, memory; what means give away."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.condensed import Run
from benchmarks.pages._parts import NOT_RUN, Kept, grid, mean, shown
from benchmarks.pages._prompts_details import noise
from benchmarks.pages._prompts_measures import cost

COSTS = "python -m benchmarks.prompt_costs"
LEAKS = "python -m benchmarks.prototype_leaks"
CUTS = "python -m benchmarks.prototype_cuts"
SENT = (
    ("PromptFL", "prompt"),
    ("FedProto on an adapter", "class means"),
    ("ours", "both"),
    ("ours, float16", "both, two bytes a number"),
)


def sections(folder: Path, found: Kept) -> Iterator[str]:
    """`found`: the Caltech runs."""
    costs = read(folder / "prompts_costs.json")
    yield "## Bytes\n"
    yield from _bytes(costs, found)
    yield from _cuts(read(folder / "prompts_cuts.json"))
    yield "## Time and memory on the device\n"
    yield from _device(costs)
    yield "## What class means give away\n"
    yield from _leaks(read(folder / "prompts_leaks.json"))
    yield noise(found)


def read(path: Path) -> Any:  # Any: JSON; None when it was not measured
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _bytes(costs: Any, found: Kept) -> Iterator[str]:
    sizes = costs["sizes"] if costs else None
    yield (
        "Of one agent and round, with what the wire adds. Down as measured: ten agents share a host, which fetches what"
        " is common once; a host with one agent fetches all of it.\n"
    )
    rows = [(label, what, *_travelled(found.of(label)), _alone(label, sizes)) for label, what in SENT]
    if sizes:
        whole = f"{sizes['encoder_bytes'] / 1e3:,.0f}"
        rows.append(("full fine-tuning of the encoder, calculated", "the encoder in float32", whole, "", whole))
    yield grid(("row", "what is sent", "kB up", "kB down", "kB down, one agent a host, calculated"), rows)
    if not sizes:
        yield f"Sizes: `{COSTS}`: {NOT_RUN}.\n"
        return
    means = sizes["n_classes"] * sizes["mean_bytes"]
    ratio = sizes["encoder_bytes"] / sizes["prompt_bytes"]
    claim = "within" if ratio >= 1000 else "above"
    text = (
        f"The prompt has {sizes['prompt_bytes']:,} bytes, 1/{ratio:,.0f} of the encoder's {sizes['encoder_bytes']:,}:"
        f" {claim} the thousandth. Means of all {sizes['n_classes']} classes have {means:,} bytes,"
        f" {means / sizes['prompt_bytes']:.1f} times the prompt; with CLIP's 512 numbers and 100 classes it is"
        f" {100 * 512 / (16 * 512):.1f} times. An agent sends those of its own classes only."
    )
    ours, prompt = (mean(found.of(label), cost("bytes_up", 1)) for label in ("ours", "PromptFL"))
    if ours and prompt:
        text += f' "No additional communication" does not hold: ours sends {ours[0] / prompt[0]:.2f} times what'
        text += " PromptFL does."
    yield text + f" The adapter ({sizes['adapter_bytes']:,} bytes) stays.\n"


def _travelled(runs: list[Run]) -> tuple[str, str]:
    up, down = (shown(mean(runs, cost(name, 1e3)), digits=1) for name in ("bytes_up", "bytes_down"))
    return up, down


def _alone(label: str, sizes: Any) -> str:
    if not sizes:
        return NOT_RUN
    means = sizes["n_classes"] * (sizes["mean_bytes"] + 8)  # an id and a count each
    parts = {"PromptFL": sizes["prompt_bytes"], "FedProto on an adapter": means}
    n_bytes = parts.get(label, sizes["prompt_bytes"] + means) / (2 if label.endswith("float16") else 1)
    return f"{n_bytes / 1e3:.1f}"


def _cuts(found: Any) -> Iterator[str]:
    if not found:
        yield f"Class means in fewer bytes: `{CUTS}`: {NOT_RUN}.\n"
        return
    yield (
        "Class means in fewer bytes, tried on those of a whole run of ours (`prototype_cuts`); accuracy is that of the"
        " nearest mean. float16 is a setting (`[wire]`), the others are not built: moved means would need the server to"
        " keep each agent's last ones.\n"
    )
    rows = [
        (c["name"], f"{c['bytes_up'] / 1e3:.2f}", f"{c['bytes_down'] / 1e3:.2f}", f"{100 * c['accuracy']:.2f}")
        for c in found["cuts"]
    ]
    yield grid(("class means as", "kB up", "kB down", "accuracy, %"), rows)


def _device(costs: Any) -> Iterator[str]:
    if not costs:
        yield f"`{COSTS}`: {NOT_RUN}.\n"
        return
    images, step, onnx, torch = costs["images"], costs["step"], costs["onnx"], costs["torch"]
    yield f"Encoder {costs['encoder']}, {costs['cpu']}, one thread; CPU seconds, in brackets as the clock had them.\n"
    rows = [
        (
            f"features of {images['n_images']} images, all agents' of one round, s",
            f"no cache {images['without_cache_cpu_s']:.2f} ({images['without_cache_s']:.2f})",
            f"from the cache, round 2 on {images['with_cache_cpu_s']:.3f} ({images['with_cache_s']:.3f})",
            f"{images['without_cache_cpu_s'] / images['with_cache_cpu_s']:.0f} times",
        ),
        (
            f"text tower, {step['n_classes']} classes, there and back, ms",
            f"{step['n_positions']} tokens {step['uncut_ms']:.0f}",
            f"cut behind the end, {step['n_tokens']} tokens {step['texts_ms']:.0f}",
            f"{step['uncut_ms'] / step['texts_ms']:.1f} times",
        ),
        (
            "peak memory of a process with the image tower, MB",
            f"torch {torch['peak_bytes'] / 1e6:,.0f}",
            f"ONNX {onnx['peak_bytes'] / 1e6:,.0f}",
            f"{torch['peak_bytes'] / onnx['peak_bytes']:.1f} times",
        ),
        (
            "images a CPU second",
            f"torch {torch['images_per_cpu_s']:.0f}",
            f"ONNX {onnx['images_per_cpu_s']:.0f}",
            f"{onnx['images_per_cpu_s'] / torch['images_per_cpu_s']:.1f} times",
        ),
    ]
    yield grid(("", "without", "with", "better by"), rows)
    share = min(1.0, step["texts_ms"] / step["step_ms"])
    yield (
        f"A training step of {step['batch']} images takes {step['step_ms']:.0f} ms, of which the text tower has"
        f" {100 * share:.0f} %; that part grows with the classes, not with the images. Seconds of whole rounds are in"
        " the tables above.\n"
    )


def _leaks(found: Any) -> Iterator[str]:
    if not found:
        yield f"`{LEAKS}`: {NOT_RUN}.\n"
        return
    yield (
        "Means are named by class: which classes an agent has is plain to see. An attacker with all training images of"
        " a class takes the one nearest to a mean; how often it is the sender's, beside a random one:\n"
    )
    rows = [
        (f"{leak['noise']:g}", f"{100 * leak['found']:.0f}", f"{100 * leak['chance']:.0f}") for leak in found["leaks"]
    ]
    yield grid(("noise a coordinate", "nearest is the sender's, %", "a random one, %"), rows)
