import subprocess
import sys

import numpy as np
import pytest

from common.errors import ConfigError, UnknownName
from common.method import ModelSpec, Training
from edge_client import learners


def test_auto_takes_numpy_where_numpy_will_do() -> None:
    assert learners.choose("auto", ModelSpec("linear")) == "numpy"
    assert learners.choose("auto", ModelSpec("mlp")) == "numpy"


def test_without_torch_a_net_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert learners.choose("auto", ModelSpec("mlp")) == "numpy"
    assert learners.available() == ("numpy", "onnx")
    with pytest.raises(ConfigError, match=r"model 'fedavg_cnn' with objective 'cross_entropy' needs edgefed\[torch\]"):
        learners.choose("auto", ModelSpec("fedavg_cnn"))
    with pytest.raises(ConfigError, match=r"model 'linear' .* needs edgefed\[torch\]"):
        learners.choose("torch", ModelSpec("linear"))


def test_numpy_refuses_what_it_cannot_train() -> None:
    with pytest.raises(ConfigError, match="the numpy learner trains linear and mlp with cross_entropy only"):
        learners.choose("numpy", ModelSpec("fedavg_cnn"))
    with pytest.raises(ConfigError, match="the numpy learner trains linear and mlp with cross_entropy only"):
        learners.make("numpy", ModelSpec("fedavg_cnn"), 10)


@pytest.mark.parametrize(
    ("preference", "model", "objective", "text"),
    [
        ("numpi", "linear", "cross_entropy", "unknown learner 'numpi'; did you mean 'numpy'"),
        ("auto", "resnet81", "cross_entropy", "unknown model 'resnet81'; did you mean 'resnet18'"),
        ("auto", "linear", "cross_entropie", "unknown objective 'cross_entropie'; did you mean 'cross_entropy'"),
    ],
)
def test_misspelled_names_get_the_nearest(preference: str, model: str, objective: str, text: str) -> None:
    with pytest.raises(UnknownName, match=text):
        learners.choose(preference, ModelSpec(model), objective=objective)
    if preference != "auto":
        with pytest.raises(UnknownName, match=text):
            learners.make(preference, ModelSpec(model), 10)


def test_an_unknown_term_is_refused_when_the_learner_is_made() -> None:
    with pytest.raises(UnknownName, match="unknown term 'prototype'; did you mean 'prototypes'"):
        learners.make("numpy", ModelSpec("linear"), 10, terms=("prototype",))


def test_the_numpy_learner_imports_no_torch() -> None:
    code = (
        "import sys\n"
        "from common.method import ModelSpec\n"
        "from edge_client import learners\n"
        "learners.make(learners.choose('auto', ModelSpec('mlp')), ModelSpec('mlp'), 10)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_model_bytes_come_from_the_learner() -> None:
    learner = learners.make("numpy", ModelSpec("linear", {"input": 4}), 2)
    assert learners.model_bytes(learner, Training(momentum=0.5)) == 3 * (2 * 4 + 2) * 4
    assert learner.initial(np.random.default_rng(0)).n_bytes == (2 * 4 + 2) * 4
