"""The page on self-supervision from made-up runs: accuracies are chosen so that every figure can be read off."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import condensed, pages
from benchmarks.condensed import Condensed, Measured, Round, Run
from benchmarks.pages import _parts as parts
from benchmarks.pages import _ssl_costs as costs

FLOWERS, SCENES = "flowers102_all", "intel_scenes_all"
MODEL = {"name": "resnet10", "input": "64x64x3", "width": 16, "head": "agent"}
COSTS = {"train_s": 2.5, "cpu_s": 2.0, "rss_peak_delta_bytes": 30e6, "model_bytes": 5e6, "bytes_up": 1234.0}
RUN = Run("", "task_heads", 1, "", "done", 60.0, {"model": MODEL}, (), (), costs=COSTS)


def made(label: str, stage: str, flowers: float, scenes: float, *, seed: int = 1, cpu_s: float = 4.0) -> Run:
    """Three rounds; half the accuracy after the first, all of it from the second on."""
    tasks = {name: {"1": a / 2, "2": a, "3": a} for name, a in ((FLOWERS, flowers), (SCENES, scenes))}
    rounds = (Round(1, 3.0, {}, 3 * cpu_s), Round(2, 1.0, {}, cpu_s), Round(3, 1.0, {}, cpu_s))
    return replace(RUN, label=label, stage=stage, seed=seed, tasks=tasks, rounds=rounds)


def joined(label: str, stage: str, accuracy: float) -> Run:
    """A run of one task, of which no curve by task is kept."""
    measured = (Measured(5, "merged", {"personal_accuracy_weighted": accuracy}, 1),)
    return replace(RUN, label=label, stage=stage, measured=measured)


def everything() -> Iterator[Run]:
    for seed in (1, 2, 3):
        up = 0.01 * (seed - 2)
        yield made("from scratch", "full", 0.40 + up, 0.70, seed=seed, cpu_s=10.0)
        yield made("local-only SSL", "full", 0.46 + up, 0.75, seed=seed)
        yield made("local-only SSL", "probe", 0.30 + up, 0.72, seed=seed)
        yield made("federated SSL", "full", 0.48 + up, 0.74 + up, seed=seed)
        yield made("federated SSL", "probe", 0.26 + up, 0.69, seed=seed, cpu_s=0.1)
    yield made("federated SSL", "ssl", 0.2, 0.5, cpu_s=40.0)
    yield made("random backbone, frozen", "probe", 0.15, 0.50)
    yield made("random backbone, frozen, features not kept", "probe-computed", 0.15, 0.50, cpu_s=9.0)
    yield joined("federated SSL", "join-5", 0.33)
    yield joined("local-only SSL", "join-5", 0.30)
    yield made("inductive, from scratch", "full", 0.38, 0.69)


def keep(folder: Path, *runs: Run) -> None:
    condensed.save(Condensed("ssl_flowers_intel", "abc", {}, {"cores": 2}, runs), folder / "ssl_flowers_intel.json")


def line(text: str, begin: str) -> str:
    return next(row for row in text.splitlines() if row.startswith(begin))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("page")
    keep(folder, *everything())
    page, picture = pages.write("ssl", folder)
    assert picture.name == "ssl_curves.png"
    assert picture.stat().st_size > 1000
    return page.read_text()


def test_without_results_every_figure_is_said_not_to_have_been_run(tmp_path: Path) -> None:
    (path,) = pages.write("ssl", tmp_path)
    text = path.read_text()
    assert line(text, "| federated SSL | head |") == "| federated SSL | head | 0 | not run | not run | not run |"
    assert "federation adds not run to it" in text
    assert "- Federation wins: not run." in text
    assert "![" not in text


def test_ours_stands_beside_the_paper_by_task(text: str) -> None:
    assert line(text, "| paper: federated") == "| paper: federated, SSL backbone | all |  | 53.97 | 88.22 | 71.09 |"
    row = "| from scratch (the paper's CL) | all | 3 | 40.00 ± 1.00 | 70.00 ± 0.00 | 55.00 ± 0.50 |"
    assert line(text, "| from scratch (") == row
    assert line(text, "| ImageNet").count(parts.NOT_RUN) == 3


def test_gains_are_parted_into_self_supervision_and_federation(text: str) -> None:
    """Flowers with all tuned: 40 alone with labels, 46 with SSL, 48 with federation; scenes 70, 75, 74 +- 1."""
    flowers = line(text, "- Flowers:")
    assert "gains +8.00 ± 0.00 with all tuned (the paper +24.05)" in flowers
    assert "each agent by itself, gains +6.00 ± 0.00; federation adds +2.00 ± 0.00" in flowers
    assert "self-supervision +14.00 (one seed) over a random backbone, federation -4.00 ± 0.00" in flowers
    assert flowers.endswith("So with all tuned 25 % of the gain is federation's.")
    assert line(text, "- Scenes:").endswith("So with all tuned none of it can be credited to federation.")


def test_where_federation_wins_and_where_not(text: str) -> None:
    assert "third task with 5 labels a class, frozen, beside the flowers' own backbone (+3.00 (one seed))" in line(
        text, "- Federation wins:"
    )
    assert "two agents, a head alone trained, scenes (-3.00 ± 0.00)" in line(text, "- It loses:")
    assert "two agents, all trained, scenes (-1.00 ± 1.00)" in line(text, "- No clear difference:")


def test_rounds_until_near_training_from_scratch(text: str) -> None:
    rows = [row for row in text.splitlines() if row.startswith("| local-only SSL | 2.0")]
    assert rows == ["| local-only SSL | 2.0 | 2.0 |"]


def test_seen_beside_unseen_and_the_third_task(text: str) -> None:
    assert line(text, "| from scratch | all |") == "| from scratch | all | 39.00 | 38.00 | 70.00 | 69.00 |"
    assert line(text, "| federated, frozen |") == "| federated, frozen | 1 | not run | 33.00 | not run |"


def test_features_that_are_kept_cost_one_round(text: str) -> None:
    assert line(text, "| features kept |") == "| features kept | 12.00 | 4.00 |"
    assert line(text, "| features computed in") == "| features computed in every epoch | 27.00 | 9.00 |"


def test_one_backbone_with_heads_beside_models_that_share_nothing(text: str) -> None:
    """Heads of 128 features: 102 * 129 + 6 * 129 = 13,932. From scratch 50 CPU s for two, SSL 200, heads 0.5."""
    pytest.importorskip("torch")
    net = costs.size(made("from scratch", "full", 0, 0))
    assert net is not None
    assert net.head_params == (102 * 129, 6 * 129)
    shared, apart = (
        line(text, f"| 2 tasks, {what}").split("|")[2:] for what in ("one backbone", "2 models")
    )  # fmt: skip
    assert shared[0].strip() == f"{net.params + 13932:,}"
    assert apart[0].strip() == f"{2 * net.params + 13932:,}"
    assert (shared[3].strip(), apart[3].strip()) == ("200", "50")
    assert "the cheaper one from 9 tasks on" in text  # 200 / (25 - 0.25) = 8.1


def test_the_page_that_is_kept_says_what_the_file_beside_it_says(tmp_path: Path) -> None:
    pytest.importorskip("torch")  # sizes of the net
    kept = Path(__file__).parents[2] / "docs" / "experiments"
    shutil.copy(kept / "ssl_flowers_intel.json", tmp_path)
    written = pages.write("ssl", tmp_path)
    assert written[0].read_text() == (kept / "ssl.md").read_text(), "run: fed-bench page ssl"
    assert {path.name for path in written} <= {path.name for path in kept.iterdir()}
