"""A real dual encoder on real images: EDGEFED_MODELS with edgefed-dual-mnv2, EDGEFED_DATA with caltech101."""

import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from common import models
from common.method import ModelSpec
from common.payloads import Weights
from common.samples import from_arrays
from edge_client import learners
from edge_client.data.named import open_named
from edge_client.features import feature_source

pytestmark = [pytest.mark.data, pytest.mark.slow]
ENCODER = "edgefed-dual-mnv2"


@pytest.mark.filterwarnings("ignore")  # transformers' own
def test_zero_shot_is_what_the_encoder_is_known_for() -> None:
    for variable, folder in (("EDGEFED_MODELS", ENCODER), ("EDGEFED_DATA", "caltech101")):
        found = os.environ.get(variable)
        if not found or not (Path(found) / folder).is_dir():
            pytest.skip(f"set {variable} to a folder with {folder}")
    pool = open_named("caltech101")
    options = {"encoder": ENCODER, "texts": "caltech101", "context": 0}
    spec = models.with_classes(ModelSpec("prompted", options), pool.classes)
    places = np.arange(pool.n_train, len(pool.source.labels))
    x = feature_source(pool.source, spec).read(places)
    samples = from_arrays(x, pool.source.labels[places], len(pool.classes))
    right = learners.make("torch", spec, len(pool.classes)).scores(Weights({}), samples).argmax(1) == samples.labels
    assert right.mean() == pytest.approx(0.494, abs=0.01)
