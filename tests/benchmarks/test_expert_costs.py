"""Costs of experts and the picture of their tree, from a run as results.json keeps it: figures chosen by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from matplotlib import pyplot as plt

from benchmarks import condensed, expert_costs, tree_picture
from benchmarks.results import AgentRow, EvaluationRow, Results, RoundRow, RunRow, SpanRow

pytest.importorskip("sklearn", reason="classes of digits come with scikit-learn")
KINDS = {"round": "0689", "open": "235", "straight": "147"}
EDGES = [["digit", kind] for kind in KINDS] + [[kind, digit] for kind, digits in KINDS.items() for digit in digits]
MB = 1_000_000


def config(method: str, **model: Any) -> dict[str, Any]:
    return {
        "run": {"method": method, "rounds": 2},
        "model": {"name": "mlp", **model},
        "data": {"name": "digits", "n_agents": 1, "taxonomy": EDGES},
    }


def task(*spans: SpanRow, train_s: float = 0.0, warmup: bool = False, up: int | None = 1000) -> AgentRow:
    size = max((s.data_bytes for s in spans), default=4 * MB), max((s.model_bytes for s in spans), default=2 * MB)
    return AgentRow(
        "a", "digits", "merged", train_s=train_s, warmup=warmup, spans=spans, bytes_up=up, bytes_down=500,
        data_bytes=size[0], model_bytes=size[1], rss_peak_delta_bytes=8 * MB, n_samples=100,
    )  # fmt: skip


def span(node: str, seconds: float, megabytes: int) -> SpanRow:
    return SpanRow(f"expert {node}", seconds, seconds, megabytes * MB, 10 * megabytes, megabytes * MB, MB)


def row(label: str, method: str, tasks: list[AgentRow], counts: dict[str, float] | None = None) -> RunRow:
    rounds = tuple(RoundRow(i + 1, 1.0, agents=(t,)) for i, t in enumerate(tasks))
    extra = {} if counts is None else {"counts": counts}
    evaluations = (EvaluationRow(2, "merged", "all", "test", (), {}, extra),)
    return RunRow(label, method, 1, config(method), "done", {}, rounds, evaluations)


EXPERTS = row(
    "tree",
    "hier_moe",
    [
        task(span("digit", 9.0, 4), warmup=True),
        task(span("digit", 3.0, 4)),
        task(span("open", 0.5, 1), span("round", 1.0, 2)),
    ],
    {"inputs": 4, "inputs digit": 4, "right digit": 3, "inputs open": 2, "right open": 2},
)
FLAT = row("flat", "flat_softmax", [task(train_s=5.0)])


def test_costs_are_of_warm_tasks_and_bytes_of_experts_that_travelled_alone() -> None:
    costs = expert_costs.of_experts(EXPERTS)
    assert list(costs) == ["digit", "round", "open"]  # breadth first
    assert (costs["digit"].seconds, costs["digit"].n_tasks, costs["digit"].accuracy) == (3.0, 2, 0.75)
    assert (costs["open"].seconds, costs["open"].data_bytes, costs["open"].accuracy) == (0.5, MB, 1.0)
    assert (costs["digit"].bytes_up, costs["open"].bytes_up) == (1000, None)
    assert costs["round"].accuracy is None
    assert (costs["open"].parent, costs["open"].n_children, costs["digit"].n_classes) == ("digit", 3, 10)


def test_condensed_costs_are_read_back_as_they_were(tmp_path: Path) -> None:
    """Those of an expert that never travelled alone, too: JSON has no word for bytes that are not known."""
    kept = condensed.of(Results("x", "abc", {}, {}, (EXPERTS, FLAT)))
    condensed.save(kept, tmp_path / "x.json")
    tree, flat = condensed.load(tmp_path / "x.json").runs
    assert tree.experts == expert_costs.of_experts(EXPERTS)
    assert flat.flat == expert_costs.of_flat(FLAT)


def test_a_run_without_experts_has_no_costs_of_any() -> None:
    assert expert_costs.of_experts(FLAT) == {}
    assert expert_costs.markdown(Results("x", "", {}, {}, (FLAT,))) == ""


def test_a_table_gives_dearest_cheapest_and_mean_in_per_cent_of_the_flat_net() -> None:
    lines = expert_costs.markdown(Results("x", "", {}, {}, (FLAT, EXPERTS))).splitlines()
    assert lines[2].startswith("| flat net | 5000 | 6.0 |")
    assert lines[3].startswith("| tree: max of 3 | 3000 (60.0 %) | 5.0 (83.3 %) |")
    assert lines[4].startswith("| tree: min of 3 | 500 (10.0 %) | 2.0 (33.3 %) |")
    assert lines[5].startswith("| tree: mean of 3 | 1500 (30.0 %) | 3.3 (55.6 %) |")


def test_the_model_whose_activations_count_is_the_node_s_own() -> None:
    """Heads on a common trunk keep none worth the name, and a width by place is the place's."""
    model = {"name": "gn_cnn", "input": "8x8x1", "width": 8, "blocks": 1}
    heads = replace(EXPERTS, config={**EXPERTS.config, "model": model, "method": {"trunk": "shared_frozen"}})
    assert all(cost.activation_bytes is None for cost in expert_costs.of_experts(heads).values())
    pytest.importorskip("torch")
    widths = {"option": "width", "root": 8, "bottom": 4}
    narrow = replace(EXPERTS, config={**EXPERTS.config, "model": model, "method": {"widths": widths}})
    per_batch = {
        n: (c.activation_bytes or 0) / min(32, c.n_samples) for n, c in expert_costs.of_experts(narrow).items()
    }
    assert per_batch["open"] < per_batch["digit"]


def test_activations_of_a_batch_grow_with_it_and_leave_parameters_out() -> None:
    pytest.importorskip("torch")
    from common.method import ModelSpec

    spec = ModelSpec("gn_cnn", {"input": "8x8x1", "width": 8, "blocks": 1})
    one, ten = (expert_costs.activation_bytes(spec, 3, n) for n in (1, 10))
    assert one is not None
    assert ten is not None
    assert 9 * one < ten <= 10 * one
    assert one >= 8 * 8 * 4 + 8 * 8 * 8 * 4  # the input and what the convolution gives
    assert expert_costs.activation_bytes(ModelSpec("mlp"), 3, 1) is None


def test_the_tree_is_drawn_with_accuracy_and_cost(tmp_path: Path) -> None:
    costs, tree = expert_costs.of_experts(EXPERTS), expert_costs.tree_of(EXPERTS)
    text = tree_picture.text(tree, costs)
    assert "digit  75 %, 3000 ms, 5.0 MB" in text.splitlines()[0]
    assert "├─ round  1000 ms, 3.0 MB" in text
    picture, drawing = tree_picture.results(Results("x", "", {}, {}, (FLAT, EXPERTS)), tmp_path)
    assert (picture.name, drawing.name) == ("tree-tree.png", "tree-tree.txt")
    assert picture.stat().st_size > 5000
    assert drawing.read_text() == text + "\n"
    figure = tree_picture.draw(costs, "title")
    said = [t.get_text() for t in figure.axes[0].texts]
    assert said[0] == "digit  (3 children, 10 classes)  75 %, 3000 ms, 5.0 MB"
    assert [line.split()[0] for line in said[1:]] == ["round", "open"]
    plt.close(figure)
