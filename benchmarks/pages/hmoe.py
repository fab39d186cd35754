"""docs/experiments/hmoe.md: a tree of experts beside one flat net, what each costs, on whom, and how it grows."""

import re
from collections.abc import Iterator
from pathlib import Path

from benchmarks import plot, tree_picture
from benchmarks.expert_costs import Cost
from benchmarks.pages import _hmoe_costs as of_cost
from benchmarks.pages import _hmoe_fleet as mixed
from benchmarks.pages import _hmoe_goals as goals
from benchmarks.pages import _hmoe_growth as growth
from benchmarks.pages import _hmoe_scores as scores
from benchmarks.pages._hmoe_published import CIFAR100, TINY_IMAGENET, DataSet, Published
from benchmarks.pages._parts import NOT_RUN, Kept, grid, kept, percent

INTRODUCTION = """# Hierarchical mixture of experts

Kim and Choi, Hierarchical Mixture-of-Experts for Edge Device in Federated Learning: one small classifier per inner
node of a class taxonomy, one trained a round on the samples under its node, against Flat Softmax. The paper describes
neither nets nor settings; ours are in the run files. Written by `fed-bench page hmoe` from the JSON files beside it;
"not run" stands where a run is still missing.

    fed-bench run hmoe_cifar100 --out out/hmoe_cifar100        the same for hmoe_cifar100_trunk, hmoe_cifar100_growth,
    fed-bench condense out/hmoe_cifar100 --out docs/experiments    hmoe_cifar100_isolate and hmoe_tiny_imagenet
    python -m benchmarks.mixed_fleet --keep docs/experiments
    fed-bench page hmoe

How to read it. *F1* is information F1 (Valmadre, NeurIPS 2022), the mean over test images, in the last round: never
the best one. *ms* are wall seconds of one agent's training, *CPU ms* its process's; where several experiments share a
machine only the second says much. *Data + model* is what the paper calls memory: 61.9 MB with the flat net and 4.1 MB
with the smallest expert are 5,000 and 250 images as float32 (58.6 and 2.9 MiB) and a constant, so activations are not
in it, and nearly all of the saving is that an agent reads only the samples under a node. Ours are exact sums: images as
bytes, which they stay until their batch, and float32 parameters, gradients and momentum. *… + activations* adds what
one batch keeps for the backward pass. *RSS added* is measured: the peak of the process's resident memory above its
start. MiB and KiB are 2^20 and 2^10 bytes. Bytes are gRPC messages; what a host has fetched is not sent again to other
agents on it, so where ten agents share one host "down" is about a tenth of "up". Several seeds: mean ± deviation.
"""
LEVERS = (
    ("parents before their children", "experts, parents first", "experts"),
    ("start from the parent's expert", "experts, from their parents", "experts, parents first"),
    ("a temperature for each expert", "from parents, with temperatures", "experts, from their parents"),
    ("softmax over the classes below", "from parents, trained on classes", "experts, from their parents"),
    ("rounds by need", "experts, by need", "experts"),
    ("experts by the agents' measurements", "experts, by resources", "experts"),
)
TRUNK = ("linear experts on the root's frozen trunk", "experts on a frozen trunk", "experts, from their parents")
PROTOCOL, WARM = "experts", "experts, from their parents"


def write(folder: Path) -> list[Path]:
    pictures: list[Path] = []
    text = "\n".join([INTRODUCTION, *_sections(folder, pictures)])
    path = folder / "hmoe.md"
    path.write_text(text.rstrip() + "\n", encoding="utf-8")
    return [path, *pictures]


def _sections(folder: Path, pictures: list[Path]) -> Iterator[str]:
    short = kept(folder, "hmoe_cifar100")
    trunk = kept(folder, "hmoe_cifar100_trunk")
    yield "## CIFAR-100\n"
    yield "10,000 training images on 10 agents, 20 times through the data for every net.\n"
    yield from _data_set("hmoe_cifar100", short, CIFAR100, staged=trunk)
    if short.runs:
        yield "### What each lever gives\n"
        heads = Kept(trunk.found, tuple(run for run in trunk.runs if run.stage == "heads"))
        pairs = [(lever, short, label, against) for lever, label, against in LEVERS]
        yield from scores.ablation([*pairs, (TRUNK[0], heads, *TRUNK[1:])], short, PROTOCOL)
        yield from _tree(short, folder, "hmoe_tree_cifar100.png", pictures)
    yield "## Tiny ImageNet\n"
    yield "50 images of each class, of 32 pixels, on 5 agents; 10 times through the data for every net, one seed.\n"
    tiny = kept(folder, "hmoe_tiny_imagenet")
    yield from _data_set("hmoe_tiny_imagenet", tiny, TINY_IMAGENET)
    yield from _tree(tiny, folder, "hmoe_tree_tiny_imagenet.png", pictures)
    yield "## Memory of single experts\n"
    yield from _isolated(kept(folder, "hmoe_cifar100_isolate"))
    yield "## A mixed fleet\n"
    yield from mixed.sections(folder)
    yield "## Growth, and a part of the tree\n"
    yield from growth.sections(kept(folder, "hmoe_cifar100_growth"), short)
    yield "## The whole data\n"
    for name, published in (("hmoe_cifar100_full", CIFAR100), ("hmoe_tiny_imagenet_full", TINY_IMAGENET)):
        yield from _data_set(name, kept(folder, name), published)


def _data_set(name: str, found: Kept, published: DataSet, staged: Kept | None = None) -> Iterator[str]:
    """`staged`: an experiment of stages whose score stands beside the same flat nets."""
    if not found.runs:
        yield f"`fed-bench run {name}`: {NOT_RUN}.\n"
        return
    yield "The paper's table, ours beside it; per cent are of the flat net:\n"
    yield _published(found, published)
    yield of_cost.costs(found, PROTOCOL)
    yield "Goals:\n"
    yield from goals.costs(found, PROTOCOL, published)
    for label in (PROTOCOL, WARM):
        yield from goals.f1(found, label)
    if staged is not None:
        yield from goals.f1_of_stages(found, staged)
    yield _total(found)
    yield "F1 by decoder, and what whole runs took:\n"
    yield scores.decodings(found)


def _published(found: Kept, published: DataSet) -> str:
    runs, flat = found.of(PROTOCOL), of_cost.reference(found)
    nets = found.of(flat) if flat else []
    lines = []
    for title, theirs, choose in (
        ("flat", published.flat, None),
        ("largest expert", published.largest, max),
        ("smallest expert", published.smallest, min),
    ):
        cells = []
        for unit, measure in ((1e-3, _seconds), (1e-3, _cpu), (of_cost.MIB, of_cost.data_model)):
            whole = of_cost.of_flat(nets, measure)
            value = whole if choose is None else of_cost.over(runs, measure, choose)
            cells.append(of_cost.cell(value, unit, None if choose is None else whole) or NOT_RUN)
        f1 = percent(nets if choose is None else runs, scores.metric(scores.LEAF)) if choose is not min else ""
        lines.append([title, *_paper(theirs, published.flat), f1, *cells])
    titles = ("", "paper: F1, %", "ms", "MiB", "ours: F1 greedy, %", "ms", "CPU ms", "data + model, MiB")
    return grid(titles, lines)


def _paper(theirs: Published, flat: Published) -> list[str]:
    f1 = "" if theirs.f1 is None else f"{100 * theirs.f1:.2f}"
    if theirs is flat:
        return [f1, f"{theirs.ms:g}", f"{theirs.mib:g}"]
    return [
        f1,
        f"{theirs.ms:g} ({100 * theirs.ms / flat.ms:.1f} %)",
        f"{theirs.mib:g} ({100 * theirs.mib / flat.mib:.1f} %)",
    ]


def _seconds(cost: Cost) -> float:
    return cost.seconds


def _cpu(cost: Cost) -> float:
    return cost.cpu_s


def _total(found: Kept) -> str:
    """The paper's third claim: the whole tree is larger and takes longer."""
    flat = of_cost.reference(found)
    mine, other = found.of(PROTOCOL), found.of(flat) if flat else []
    if not mine or not other:
        return f"The tree as a whole: {NOT_RUN}.\n"
    time = of_cost.share(of_cost.device_s(mine[0]), of_cost.device_s(other[0]))
    size = of_cost.share(of_cost.all_parameters(mine[0]), of_cost.all_parameters(other[0]))
    if time is None or size is None:
        return f"The tree as a whole: {NOT_RUN}.\n"
    return (
        f"All experts together have {size:.1f} times the parameters of `{flat}` and took {time:.2f} times its time.\n"
    )


def _isolated(found: Kept) -> Iterator[str]:
    if not found.runs:
        yield f"`fed-bench run hmoe_cifar100_isolate`: {NOT_RUN}.\n"
        return
    yield (
        "Every task in a fresh process that has trained one batch before; an agent has 5,000 images, as in the paper.\n"
    )
    yield of_cost.costs(found, PROTOCOL)
    yield _floor(found)
    yield "Goals with so many images; those for memory, as the paper counts it, depend on the flat net beside:\n"
    for flat in of_cost.flats(found):
        yield from goals.costs(found, PROTOCOL, CIFAR100, flat=flat, times=flat == of_cost.reference(found))


def _floor(found: Kept) -> str:
    """What resident memory has beyond all that is counted."""
    rest = [
        (node, cost.rss_bytes - (of_cost.with_activations(cost) or 0.0), cost.rss_bytes)
        for run in found.of(PROTOCOL)
        for node, cost in run.experts.items()
    ]
    if not rest:
        return f"The floor of resident memory: {NOT_RUN}.\n"
    least = min(rss for _, _, rss in rest)
    between = [size / of_cost.MIB for _, size, _ in rest]
    flat = of_cost.reference(found)
    whole = of_cost.of_flat(found.of(flat), lambda c: c.rss_bytes) if flat else None
    part = of_cost.share(least, whole)
    said = "" if part is None else f", {100 * part:.1f} % of the flat net's"
    return (
        "Resident memory has a floor that counting does not show: the expert that adds least adds"
        f" {least / of_cost.MIB:.1f} MiB{said}, and an expert's peak is {min(between):.1f} to {max(between):.1f} MiB"
        " above its samples, model and activations. That is scratch of the convolutions and what the allocator"
        " keeps, which neither a smaller share of the data nor a smaller net takes away.\n"
    )


def _tree(found: Kept, folder: Path, name: str, pictures: list[Path]) -> Iterator[str]:
    label = next((label for label in (WARM, PROTOCOL) if found.of(label)), None)
    if label is None:
        return
    costs = found.of(label)[0].experts
    if not costs or not all(cost.n_classes for cost in costs.values()):
        return  # of before results said where an expert stands
    title = re.sub(r"^hmoe_tree_|\.png$", "", name)
    pictures.append(plot.save(tree_picture.draw(costs, f"{title}: {label}"), folder / name))
    yield f"### The tree, with accuracy and cost of each expert\n\n![tree of experts]({name})\n"
