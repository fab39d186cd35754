"""The first State of a run, in this process and in a child."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from common import pb, runfile
from common.blobs import Blobs
from common.errors import ConfigError, LocalFault
from common.methods import fedavg
from common.payloads import Blob, Weights
from common.wire import records
from server import initial
from server.inbox import Stopped
from tests.server.devices import CLASSES, RUN


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path)


def request(blobs: Blobs, text: str = RUN, **given: pb.PayloadRef) -> initial.Request:
    blob = runfile.to_blob(runfile.parse(text, "test"), "run", CLASSES)
    return initial.Request(blobs.put(blob), given)


def state_of(blobs: Blobs, record: pb.Record) -> fedavg.State:
    state = records.decode(fedavg.State, record, lambda ref, _: blobs.open(ref))
    assert isinstance(state, fedavg.State)
    return state


def test_a_child_draws_the_same_state(blobs: Blobs, tmp_path: Path) -> None:
    here = initial.draw(blobs, request(blobs))
    assert initial.drawn(tmp_path, request(blobs)) == here
    assert state_of(blobs, here).weights["classifier.weight"].shape == (3, 4)


def test_what_the_child_cannot_do_is_one_sentence(blobs: Blobs, tmp_path: Path) -> None:
    earlier = blobs.put(Weights({"other": np.zeros(3, np.float32)}))
    with pytest.raises(
        ConfigError, match="the first state could not be made: init_from: the model has no tensor 'other'"
    ):
        initial.drawn(tmp_path, request(blobs, weights=earlier))


def endless(blobs: Blobs) -> initial.Request:
    """Its child waits for the run, which never comes."""
    os.mkfifo(blobs.path(bytes(32)))
    return initial.Request(pb.PayloadRef(sha256=bytes(32), size=1))


def test_a_child_is_ended_when_its_run_or_the_server_is_told_to_stop(blobs: Blobs, tmp_path: Path) -> None:
    before, groups = psutil.Process().children(), set()

    def check() -> None:
        groups.update(os.getpgid(child.pid) for child in psutil.Process().children() if child not in before)
        raise Stopped(for_good=False)

    with pytest.raises(Stopped):
        initial.drawn(tmp_path, endless(blobs), check)
    assert len(groups - {os.getpgid(0)}) == 1, "Ctrl-C is for the server"
    assert psutil.Process().children() == before


def test_a_child_that_somebody_else_has_ended_is_no_fault_of_the_run(blobs: Blobs, tmp_path: Path) -> None:
    """A service manager ends all processes of the server at once, and this one may be the first."""
    before = psutil.Process().children()

    def check() -> None:
        for child in psutil.Process().children():
            if child not in before:
                child.terminate()

    with pytest.raises(LocalFault, match=r"ended by signal 15$"):
        initial.drawn(tmp_path, endless(blobs), check)


def test_weights_of_an_earlier_run_are_the_first_ones(blobs: Blobs) -> None:
    earlier = Weights({n: np.full(s, 5, np.float32) for n, s in SHAPES.items()})
    state = state_of(blobs, initial.draw(blobs, request(blobs, weights=blobs.put(earlier))))
    assert all((array == 5).all() for array in state.weights.values())


def test_a_payload_that_nobody_reads_is_an_error(blobs: Blobs) -> None:
    with pytest.raises(ConfigError, match=r"method fedavg has no use for payload 'mask'.*init_map"):
        initial.draw(blobs, request(blobs, mask=blobs.put(Weights({"x": np.zeros(1, np.float32)}))))


def test_init_map_names_what_is_taken(blobs: Blobs) -> None:
    refs = {"backbone": pb.PayloadRef(size=1), "score": pb.PayloadRef(size=2)}
    assert initial.mapped(refs, {"weights": "backbone"}, "first") == {"weights": refs["backbone"]}
    assert initial.mapped(refs, {}, "first") == refs
    with pytest.raises(ConfigError, match="run 'first' does not have: 'trunk'; it has backbone, score"):
        initial.mapped(refs, {"weights": "trunk"}, "first")


def test_first_weights_from_an_npz(blobs: Blobs) -> None:
    file = io.BytesIO()
    np.savez(file, **{n: np.full(s, 2, np.float32) for n, s in SHAPES.items()})
    sent = blobs.put(Blob(initial.NPZ, file.getvalue()))
    asked = request(blobs)
    state = state_of(blobs, initial.draw(blobs, initial.Request(asked.run, {}, sent)))
    assert all((array == 2).all() for array in state.weights.values())
    broken = blobs.put(Blob(initial.NPZ, b"no zip"))
    with pytest.raises(ConfigError, match=r"is no \.npz of arrays"):
        initial.draw(blobs, initial.Request(asked.run, {}, broken))


def test_the_server_imports_no_torch(tmp_path: Path) -> None:
    program = "import sys, server.runs, server.initial; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, "PYTHONPATH": os.getcwd()})


SHAPES = {"classifier.weight": (3, 4), "classifier.bias": (3,)}
