"""docs/experiments/hmoe.md from made-up runs: figures chosen so that each cell can be worked out by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import condensed, experiment, mixed_fleet, pages
from benchmarks.condensed import Condensed, Measured, Round, Run
from benchmarks.expert_costs import Cost
from benchmarks.mixed_fleet import MIB, Did, Kept
from benchmarks.pages import _hmoe_fleet as mixed
from benchmarks.pages import _hmoe_growth as growth
from benchmarks.pages import hmoe
from benchmarks.results import AgentRow, RoundRow, RunRow, SpanRow
from common import runfile

MOMENTUM = {"optimiser": {"momentum": 0.9}, "data": {"n_agents": 2}}
FLAT = Cost(1, 1000, 1.0, 2.0, 40 * MIB, 8 * MIB, 2 * MIB, 10 * MIB, 4096.0, 4096.0)
ROOT = Cost(4, 1000, 0.5, 1.0, 20 * MIB, 8 * MIB, MIB, 5 * MIB, 2048.0, 2048.0, 0.6, "", 2, 4)
BOTTOM = Cost(2, 100, 0.02, 0.1, 10 * MIB, MIB / 2, MIB / 4, MIB, 1024.0, None, 0.7, "root", 2, 2)


def made(label: str, seed: int, f1: dict[int, dict[str, float]], *, cpu_s: float = 1.0, **more: Any) -> Run:
    """Measured at those rounds; every round takes so much CPU, and ten seconds."""
    measured = tuple(Measured(r, "merged", {"accuracy": 0.1, **m}, 2, more.get("counts", {})) for r, m in f1.items())
    rounds = tuple(Round(n, 10.0, {}, cpu_s) for n in range(1, max(f1) + 1))
    more = {"stage": "", **{k: v for k, v in more.items() if k != "counts"}}
    return Run(label, more.pop("method", "hier_moe"), seed, status="done", seconds=9.0, config=MOMENTUM, rounds=rounds,
               measured=measured, **more)  # fmt: skip


def flat(label: str, seed: int, f1: dict[int, float], cost: Cost = FLAT) -> Run:
    scores = {r: {"information_f1": v, "majority_f1": 0.05, "expected_f1": 0.3} for r, v in f1.items()}
    return made(label, seed, scores, method="flat_softmax", flat=cost)


def tree(label: str, seed: int, greedy: float, product: float, **more: Any) -> Run:
    scores = {"information_f1": greedy, "product_information_f1": product, "majority_f1": greedy}
    more = {"experts": {"root": ROOT, "a": BOTTOM}, "counts": {"inputs": 10.0, "experts greedy": 20.0}, **more}
    return made(label, seed, {2: scores}, **more)


def write(folder: Path, **experiments: list[Run]) -> str:
    for name, runs in experiments.items():
        condensed.save(Condensed(name, "abc", {}, {}, tuple(runs)), folder / f"{name}.json")
    return pages.write("hmoe", folder)[0].read_text()


def line(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(start))


def test_what_was_not_run_says_so(tmp_path: Path) -> None:
    text = write(tmp_path)
    for name in ("hmoe_cifar100", "hmoe_tiny_imagenet", "hmoe_cifar100_isolate", "hmoe_cifar100_growth"):
        assert f"`fed-bench run {name}`: not run." in text
    assert "`python -m benchmarks.mixed_fleet --keep docs/experiments`: not run." in text


def test_a_page_of_some_rows_is_a_page(tmp_path: Path) -> None:
    """Experiments grow by a row at a time: no set of rows may break the page."""
    assert "Costs of `experts`: not run." in write(tmp_path, hmoe_cifar100=[flat("flat, width 24", 1, {2: 0.2})])
    text = write(tmp_path, hmoe_cifar100=[tree("experts, from their parents", 1, 0.2, 0.3)])
    assert (
        "F1 of `experts, from their parents` by product, 30.00 % after 2 CPU s on the devices, beside the flat net at"
        " the same device time: not run" in text
    )


def test_costs_by_hand(tmp_path: Path) -> None:
    small = replace(FLAT, model_bytes=MIB, seconds=0.75)
    runs = [
        flat("flat, width 24", 1, {2: 0.2}),
        flat("flat, width 16", 1, {2: 0.1}, small),
        tree("experts", 1, 0.2, 0.3),
    ]
    text = write(tmp_path, hmoe_cifar100=runs)
    assert (
        "| largest expert | 43.98 | 72 (74.2 %) | 59.7 (96.4 %) | 20.00 | 500 (50.0 %) | 1000 (50.0 %) | 9.0 (90.0 %) |"
        in text
    )
    assert "| smallest expert |  | 3 (3.1 %) | 4.1 (6.6 %) |  | 20.0 (2.0 %) | 100 (5.0 %) | 0.75 (7.5 %) |" in text
    assert (
        line(text, "| flat, width 24 | 1000 |") == "| flat, width 24 | 1000 | 2000 | 10.0 | 20.0 | 40.0 | 4.0 | 4.0 |"
    )
    assert line(text, "| experts, mean of 2 |").startswith(
        "| experts, mean of 2 | 260 (26.0 %) | 550 (27.5 %) | 4.9 (48.8 %)"
    )
    assert (
        "wall time, least of all experts, against `flat, width 24`: 2.0 %, to be at most the published 3.1 %: met."
        in text
    )
    assert (
        "data + model, least of all experts, against `flat, width 24`: 7.5 %, to be at most the published 6.6 %: missed"
        in text
    )
    # (1 + 0.25) MiB of training over 2 MiB; two rounds of one CPU second each
    assert (
        "All experts together have 0.6 times the parameters of `flat, width 24` and took 1.00 times its time." in text
    )


def test_a_flat_net_is_compared_where_the_experts_device_time_ends(tmp_path: Path) -> None:
    """The experts had 2 rounds of 2 CPU seconds: round 4 of a flat net, and of a longer one too."""
    runs = [
        flat("flat, width 24", 1, {2: 0.15, 3: 0.22}),
        flat("flat, width 24, longer", 1, {3: 0.1, 4: 0.25, 6: 0.5}),
        tree("experts", 1, 0.21, 0.26, cpu_s=2.0),
    ]
    text = write(tmp_path, hmoe_cifar100=runs)
    assert (
        "- F1 of `experts` by product, 26.00 % after 4 CPU s on the devices, beside 25.00 % of the larger flat net"
        " within the same device time (flat, width 24, longer, round 4 of 6): at least as high (+1.00 points).\n"
    ) in text
    assert "beside 22.00 % of the flat net at its end, the larger (`flat, width 24`): at least as high" in text


def test_stages_count_together_beside_the_flat_net(tmp_path: Path) -> None:
    """A trunk of 2 rounds and heads of 2, 1 CPU second each, with two seeds: round 4 of the flat net."""
    nets = [flat("flat, width 24", 1, {2: 0.1, 4: 0.25, 6: 0.5})]
    staged = [
        tree("experts on a frozen trunk", seed, f1, f1, stage=stage)
        for seed in (1, 2)
        for stage, f1 in (("trunk", 0.0), ("heads", 0.2 + 0.1 * seed))
    ]
    text = write(tmp_path, hmoe_cifar100=nets, hmoe_cifar100_trunk=staged)
    assert (
        "- F1 of `experts on a frozen trunk` by product, 35.00 % after 4 CPU s on the devices, beside 25.00 % of the"
        " larger flat net within the same device time (flat, width 24, round 4 of 6): at least as high (+10.00 points)."
    ) in text


def test_scores_by_decoder_and_lever(tmp_path: Path) -> None:
    above = {"distribution_expected_f1": 0.4}
    warm = tree("experts, from their parents", 1, 0.3, 0.35)
    warm = replace(warm, measured=(replace(warm.measured[0], metrics={**warm.measured[0].metrics, **above}),))
    first = tree("experts, parents first", 1, 0.3, 0.32)
    runs = [
        flat("flat, width 24", 1, {2: 0.2}),
        tree("experts", 1, 0.2, 0.3),
        tree("experts", 2, 0.2, 0.2),
        first,
        warm,
    ]
    text = write(tmp_path, hmoe_cifar100=runs)
    assert line(text, "| experts | 10.00").startswith(
        "| experts | 10.00 ± 0.00 | 20.00 ± 0.00 | 25.00 ± 7.07 |  |  | 2.00"
    )
    assert line(text, "| experts, from their parents | 10.00").startswith(
        "| experts, from their parents | 10.00 | 30.00 | 35.00 |  | 40.00 | 2.00 |"
    )
    assert line(text, "| flat, width 24 | 10.00").startswith(
        "| flat, width 24 | 10.00 | 20.00 (arg max) |  | 5.00 | 30.00 |"
    )
    assert "| start from the parent's expert | 35.00 | product | +3.00 | `experts, parents first` |" in text
    assert "| rounds by need | not run |  | not run | `experts` |" in text
    assert "Product decoding alone gives `experts` +5.00 points over greedy." in text


def test_scores_on_held_out_images_hide_none_on_test_images(tmp_path: Path) -> None:
    run = tree("from parents, with temperatures", 1, 0.2, 0.3)
    held_out = Measured(2, "merged", {"information_f1_holdout": 0.9}, 2)
    text = write(tmp_path, hmoe_cifar100=[replace(run, measured=(*run.measured, held_out))])
    assert "| a temperature for each expert | 30.00 | product |" in text


def test_the_tree_is_drawn_from_the_page_s_json_alone(tmp_path: Path) -> None:
    condensed.save(
        Condensed("hmoe_cifar100", "abc", {}, {}, (tree("experts", 1, 0.2, 0.3),)), tmp_path / "hmoe_cifar100.json"
    )
    page, picture = pages.write("hmoe", tmp_path)
    assert picture.name == "hmoe_tree_cifar100.png"
    assert picture.stat().st_size > 5000
    assert f"]({picture.name})" in page.read_text()


def test_the_floor_of_resident_memory(tmp_path: Path) -> None:
    """Of 20 MiB the root's samples, model and activations are 14, of the other's 10 they are 1.75."""
    text = write(tmp_path, hmoe_cifar100_isolate=[flat("flat, width 24", 1, {1: 0.0}), tree("experts", 1, 0.0, 0.0)])
    assert "adds least adds 10.0 MiB, 25.0 % of the flat net's, and an expert's peak is 6.0 to 8.2 MiB above" in text


def test_growth_beside_training_again(tmp_path: Path) -> None:
    stages = [
        tree("grown tree", 1, 0.3, 0.4, stage="90 classes"),
        tree("grown tree", 1, 0.3, 0.35, stage="100 classes", cpu_s=0.5),
        tree("grown tree", 1, 0.9, 0.9, stage="trees alone", experts={"a": replace(BOTTOM, parent="")}),
    ]
    again = [tree("experts, from their parents", 1, 0.3, 0.36), tree("experts, from their parents", 2, 0.9, 0.9)]
    text = write(tmp_path, hmoe_cifar100=again, hmoe_cifar100_growth=stages)
    assert (
        "Growing costs 50 % of the device time of training again, and its F1 by the best decoder differs by -1.00"
        in text
    )
    # the root's 1 MiB is parameters, gradients and momentum; 4 tasks of it and 2 of the other, on two agents
    assert "| grown to 100 | 30.00 | 35.00 | 10.00 | 2 | 2 | 1 | 768 |" in text
    assert "`a`: 1 of 2 experts, 85 of 427 KiB (20.0 %), F1 90.00 % among its 2 classes" in text
    assert "70.00 % of its images to the right class, alone 70.00 %" in text


# ------------------------------------------------------------------ mixed fleet


def test_what_devices_did_is_read_from_the_tasks_of_a_run() -> None:
    def task(agent: str, outcome: str, *spans: str, peak: int = 0, reason: str = "") -> AgentRow:
        rows = tuple(SpanRow(f"expert {s}", 1.0, 1.0, 0, 1, 1, 1) for s in spans)
        return AgentRow(agent, "d", outcome, reason=reason, train_s=float(peak), rss_peak_delta_bytes=peak, spans=rows)

    rounds = (
        RoundRow(
            1, 1.0, agents=(task("small-0", "failed", reason="too\nlarge"), task("large-0", "merged", "r", peak=5))
        ),
        RoundRow(2, 1.0, agents=(task("small-0", "merged", "a", peak=3), task("large-0", "merged", "r", "a", peak=7))),
    )
    dids = {did.device: did for did in mixed_fleet.of_devices(RunRow("row", "m", 1, {}, "done", {}, rounds, ()))}
    assert list(dids) == ["small-0", "small-1", "some-0", "some-1", "large-0", "large-1"]
    assert dids["small-0"] == Did("row", "small-0", 0.1, 1, 1, 0, 3, 3.0, 1, 1, "too large", 32 * MIB)
    assert (dids["large-0"].experts, dids["large-0"].steps, dids["large-0"].peak_bytes) == (2, 3, 7)
    assert dids["some-1"].merged == 0


def test_the_mixed_fleet_by_hand(tmp_path: Path) -> None:
    def did(label: str, device: str, merged: int, peak: float, failed: int = 0, reason: str = "") -> Did:
        return Did(label, device, 0.1, merged, failed, 0, int(peak * MIB), 0.5, 1, merged, reason, 32 * MIB)

    in_turn = made("experts, in turn", 1, {2: {"information_f1": 0.1}, 4: {"information_f1": 0.2}})
    by_resources = made("experts, by resources", 1, {1: {"information_f1": 0.1}, 3: {"product_information_f1": 0.19}})
    kept = Kept(
        mixed_fleet.NAME,
        "control groups",
        (
            did("flat, width 24", "small-0", 0, 0.0, 3, "needs more memory"),
            did("experts, in turn", "small-0", 2, 33.0),
            did("experts, by resources", "small-0", 2, 31.0),
        ),
    )
    unlimited = replace(did("flat, width 24", "large-0", 3, 90.0), budget_bytes=None)
    kept = replace(kept, devices=(*kept.devices, unlimited))
    mixed_fleet.save(kept, tmp_path / mixed_fleet.DEVICES)
    assert mixed_fleet.load(tmp_path / mixed_fleet.DEVICES) == kept
    runs = [flat("flat, width 24", 1, {1: 0.05}), in_turn, by_resources]
    text = write(tmp_path, hmoe_mixed_fleet=runs)
    assert (
        "- `flat, width 24`: nothing comes from small-0; 3 tasks fail, and no device's peak is above its budget."
        in text
    )
    assert "The first failure says: “needs more memory”" in text
    assert (
        "`experts, in turn`: all devices contribute; 0 tasks fail, and peaks are above the budget on small-0 (33.0 MiB)"
        in text
    )
    assert (
        "- `experts, by resources`: all devices contribute; 0 tasks fail, and no device's peak is above its budget."
        in text
    )
    assert (
        "An F1 of 18.00 % (nine tenths of what `experts, in turn` ends with) is reached: `flat, width 24` never,"
        " `experts, in turn` after 40 s, `experts, by resources` after 30 s."
    ) in text


# ------------------------------------------------------------------ the run files


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("hmoe_cifar100", {hmoe.PROTOCOL, hmoe.WARM, *(label for _, *both in hmoe.LEVERS for label in both)}),
        ("hmoe_cifar100_trunk", {hmoe.TRUNK[1]}),
        ("hmoe_tiny_imagenet", {hmoe.PROTOCOL, hmoe.WARM}),
        ("hmoe_cifar100_isolate", {hmoe.PROTOCOL}),
        ("hmoe_mixed_fleet", {mixed.TURN, mixed.RESOURCES}),
        ("hmoe_cifar100_full", {hmoe.PROTOCOL, hmoe.WARM}),
        ("hmoe_tiny_imagenet_full", {hmoe.PROTOCOL, hmoe.WARM}),
    ],
)
def test_the_experiments_have_the_rows_that_the_page_asks_for(name: str, labels: set[str]) -> None:
    _, text = experiment.find(name)
    assert labels <= {variant.label for variant in runfile.expand(runfile.parse(text, name))}


def test_growth_has_the_settings_of_the_row_beside_it() -> None:
    """All but what growing changes: a difference would be taken for a gain or a loss of it."""
    grown = runfile.parse(experiment.find("hmoe_cifar100_growth")[1], "growth")
    short = runfile.parse(experiment.find("hmoe_cifar100")[1], "short")
    before = next(v.file for v in runfile.expand(grown) if v.stage == growth.BEFORE)
    again = next(v.file for v in runfile.expand(short) if v.label == growth.AGAIN)
    assert (before.method, before.model, before.optimiser) == (again.method, again.model, again.optimiser)
    assert replace(before.data, without=()) == again.data
