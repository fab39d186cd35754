from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot as plt

from benchmarks import partition_picture, plot
from benchmarks.table import rows
from common import runfile
from common.errors import ConfigError
from tests.benchmarks.made import experiment, row

PNG = b"\x89PNG"


def test_plots_of_results_are_written_beside_them(tmp_path: Path) -> None:
    made = plot.results(experiment(row(), replace(row(), seed=2)), tmp_path)
    assert [path.name for path in made] == ["accuracy.png", "cost.png"]
    assert all(path.read_bytes().startswith(PNG) for path in made)


def test_accuracy_has_a_line_a_row_and_a_point_a_round() -> None:
    figure = plot.accuracy(experiment(row(), replace(row(), label="FedProx")))
    (axes,) = figure.axes
    assert [line.get_label() for line in axes.lines] == ["FedAvg", "FedProx"]
    assert list(axes.lines[0].get_xdata()) == [1, 2]  # type: ignore[arg-type]  # an array
    plt.close(figure)


def test_rounds_that_only_some_seeds_have_are_not_averaged() -> None:
    shorter = replace(row(), seed=2, evaluations=row().evaluations[:1])
    figure = plot.accuracy(experiment(row(), shorter))
    assert list(figure.axes[0].lines[0].get_xdata()) == [1]  # type: ignore[arg-type]  # an array
    plt.close(figure)


@pytest.mark.parametrize("found", [(), (replace(row(), rounds=(), evaluations=()),)])
def test_nothing_to_draw_is_no_error(found: tuple[object, ...], tmp_path: Path) -> None:
    plot.results(experiment(*found), tmp_path)  # type: ignore[arg-type]  # runs
    plt.close(plot.cost(rows([]), "empty"))


def test_histogram_counts_each_training_sample_once(tmp_path: Path) -> None:
    text = '[run]\nmethod = "fedavg"\nrounds = 1\n[data]\nname = "digits"\npartition = "dirichlet"\nn_agents = 5\n'
    counts, classes = partition_picture.histogram(runfile.parse(text, "test"))
    assert counts.shape == (5, len(classes)) == (5, 10)
    assert 0.74 * 1797 < counts.sum() <= 0.76 * 1797  # a quarter of each share, rounded down, is for testing
    assert np.all(counts.sum(axis=1) > 0)


@pytest.mark.parametrize("name", ["p.xyz", "file/p.png"])
def test_a_picture_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").mkdir(0o500)
    (tmp_path / "file" / "p.png").mkdir()
    figure, _ = plt.subplots()
    with pytest.raises(ConfigError, match=r"cannot write the picture .*; choose another --out"):
        plot.save(figure, tmp_path / name)


def test_picture_of_a_partition(tmp_path: Path) -> None:
    text = '[run]\nmethod = "fedavg"\nrounds = 1\n[data]\nname = "digits"\nn_agents = 3\n'
    path = partition_picture.draw(runfile.parse(text, "test"), tmp_path / "new" / "p.png")
    assert path.read_bytes().startswith(PNG)
