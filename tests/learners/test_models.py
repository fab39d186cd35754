import sys

import numpy as np
import pytest

from common import models
from common.errors import ConfigError, UnknownName
from common.method import ModelSpec, Spec, Training
from common.payloads import Weights

LINEAR = ModelSpec("linear", {"input": "4x4x1"})


def draw(spec: ModelSpec, n_classes: int = 3, seed: int = 0) -> Weights:
    return models.load(spec, n_classes).initial(np.random.default_rng(seed))


def test_an_unknown_model_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"unknown model 'lineer'; did you mean 'linear'\?"):
        models.load(ModelSpec("lineer"), 10)


def test_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"unknown option of model mlp 'hiden'; did you mean 'hidden'\?"):
        models.load(ModelSpec("mlp", {"hiden": 32}), 10)


@pytest.mark.parametrize("value", ["32", 3.5, True])
def test_an_option_of_another_type_is_refused(value: str | float | bool) -> None:
    with pytest.raises(ConfigError, match="option of model mlp 'hidden': expected int, got"):
        models.load(ModelSpec("mlp", {"hidden": value}), 10)


@pytest.mark.parametrize(("given", "size"), [("28x28x1", 784), ((28, 28, 1), 784), (64, 64), ("64", 64)])
def test_input_may_be_text_a_list_or_a_number(given: str | int | tuple[int, ...], size: int) -> None:
    parameters = models.load(ModelSpec("linear", {"input": given}), 10).parameters()
    assert parameters["classifier.weight"].shape == (10, size)


@pytest.mark.parametrize("given", ["28x28", "0x28x1", "28x28xgrey", "", "-4", "28x28x1x1"])
def test_a_broken_input_says_what_is_expected(given: str) -> None:
    with pytest.raises(ConfigError, match="expected height x width x channels"):
        models.load(ModelSpec("linear", {"input": given}), 10).parameters()


def test_a_linear_model_has_the_tensors_of_any_head() -> None:
    assert models.load(LINEAR, 3).parameters() == {
        "classifier.weight": Spec((3, 16), layer="classifier", part="head"),
        "classifier.bias": Spec((3,), layer="classifier", part="head"),
    }


def test_mlp_has_a_trunk_and_without_classes_nothing_else() -> None:
    assert {n: s.part for n, s in models.load(ModelSpec("mlp"), 3).parameters().items()} == {
        "fc1.weight": "trunk",
        "fc1.bias": "trunk",
        "classifier.weight": "head",
        "classifier.bias": "head",
    }
    assert list(models.load(ModelSpec("mlp"), 0).parameters()) == ["fc1.weight", "fc1.bias"]


def test_a_variant_changes_classes_and_options_and_another_model_keeps_only_the_input() -> None:
    model = models.load(ModelSpec("mlp", {"input": 9, "hidden": 5}), 3)
    assert model.parameters(n_classes=7, hidden=4)["classifier.weight"].shape == (7, 4)
    assert model.parameters(model="linear")["classifier.weight"].shape == (3, 9)
    assert model.initial(np.random.default_rng(0), n_classes=2)["classifier.bias"].shape == (2,)


def test_first_weights_follow_the_generator_and_fill_the_range() -> None:
    assert all(np.array_equal(a, draw(LINEAR)[n]) for n, a in draw(LINEAR).items())
    assert not np.array_equal(draw(LINEAR)["classifier.weight"], draw(LINEAR, seed=1)["classifier.weight"])
    weight = draw(ModelSpec("linear", {"input": 100}), 100)["classifier.weight"]
    assert weight.dtype == np.float32
    assert 0.099 < np.abs(weight).max() <= 0.1  # 1 / sqrt(fan_in)


def test_the_first_tensor_that_differs_is_named() -> None:
    specs, good = models.load(LINEAR, 3).parameters(), draw(LINEAR)
    assert models.difference(specs, good) is None
    cases = {
        "tensor 'classifier.bias' is missing, expected [3] float32": good.without(["classifier.bias"]),
        "tensor 'classifier.weight': expected shape [3, 16], got [4, 16]": draw(LINEAR, 4),
        "tensor 'classifier.weight': expected float32, got float64": Weights(
            {n: a.astype(np.float64) for n, a in good.items()}
        ),
        "tensor 'classifier.bias': expected a param, got a buffer": Weights(good, {"classifier.bias": "buffer"}),
        "tensor 'extra' is not one of the model's": good.updated({"extra": np.zeros(1)}),
    }
    assert {text: models.difference(specs, weights) for text, weights in cases.items()} == {t: t for t in cases}


@pytest.mark.parametrize(
    ("training", "copies"),
    [
        (Training(), 2),  # parameters and gradients
        (Training(momentum=0.9), 3),
        (Training(optimiser="adamw"), 4),
    ],
)
def test_training_bytes_are_parameters_gradients_and_optimiser_state(training: Training, copies: int) -> None:
    assert models.training_bytes(models.load(LINEAR, 3).parameters(), training) == copies * (3 * 16 + 3) * 4


def test_buffers_count_once() -> None:
    specs = {"w": Spec((10,)), "mean": Spec((2,), kind="buffer"), "n": Spec((), "int64", "counter")}
    assert models.training_bytes(specs, Training()) == 10 * 4 * 2 + 2 * 4 + 8


def test_a_net_without_torch_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ConfigError, match=r"model 'fedavg_cnn' needs edgefed\[torch\]"):
        models.load(ModelSpec("fedavg_cnn"), 10)
