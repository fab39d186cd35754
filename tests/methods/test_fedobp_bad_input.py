"""FedOBP when a stored upload is lost or damaged, a model changes between rounds, or the disk is full: what is said."""

import errno
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common import files
from common.errors import LocalFault, RemoteFault
from common.methods import fedobp
from common.methods.fedavg import Reply
from tests.methods.contract import Case, Folders, loopback
from tests.methods.loopback import Loopback

PLAIN = Case("plain", fedobp.Config(q=0.5, form="values"))
RUNNING = Case("running score", fedobp.Config(q=0.5, ema=0.5))


def own_of(fleet: Loopback, name: str) -> Any:
    return next(task for _, task in fleet.plan((fleet.info(name),), 9, "train")).own


def stored_upload(fleet: Loopback, name: str) -> Path:
    return fleet.blobs.path(fleet.encoded(fleet.replies[name]).payloads[0].sha256)


def test_a_stored_upload_that_is_cut_short_is_said_and_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = loopback(fedobp, PLAIN, tmp_path).rounds(2)
    path = stored_upload(fleet, "bert")
    whole = path.stat().st_size
    path.write_bytes(path.read_bytes()[: whole // 2])
    with caplog.at_level(logging.WARNING):
        assert own_of(fleet, "bert") is None
    assert "agent=bert starts_from=common" in caplog.text
    assert f"is damaged: expected {whole} bytes, got {whole // 2}" in caplog.text
    fleet.rounds(1)
    assert own_of(fleet, "bert") is not None


def test_a_stored_upload_with_one_wrong_bit_is_said_and_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = loopback(fedobp, PLAIN, tmp_path).rounds(2)
    path = stored_upload(fleet, "bert")
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 64  # a number's exponent
    path.write_bytes(damaged)
    with caplog.at_level(logging.WARNING):
        assert own_of(fleet, "bert") is None
    assert "agent=bert starts_from=common" in caplog.text
    assert "is damaged: its bytes have another digest" in caplog.text


def test_an_agent_that_cannot_score_its_own_model_starts_from_the_common_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = loopback(fedobp, replace(PLAIN, config=fedobp.Config(q=0.5, score_on="agent")), tmp_path).rounds(2)
    task = next(task for _, task in fleet.plan((fleet.info("anna"),), 9, "train"))
    broken = fleet.memory("anna").weights.updated({"trunk.weight": np.full((2, 3), np.nan, np.float32)})
    start, chosen = fedobp._start(task, fedobp.Memory(weights=broken), fleet.site("anna", 9, "work"))
    assert all(np.array_equal(start[name], array) for name, array in task.common.weights.items())
    assert not chosen.bits
    assert "own_model_unusable starts_from=common reason=\"tensor 'trunk.weight' cannot be scored" in caplog.text


def test_a_stored_upload_whose_structure_is_broken_is_said_and_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = loopback(fedobp, PLAIN, tmp_path).rounds(2)
    path = stored_upload(fleet, "bert")
    path.write_bytes(os.urandom(32) + path.read_bytes()[32:])
    with caplog.at_level(logging.WARNING):
        assert own_of(fleet, "bert") is None
    assert "agent=bert starts_from=common" in caplog.text
    assert own_of(fleet, "anna") is not None


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"trunk.weight": np.zeros((9, 3), np.float32)}, r"'trunk.weight' has another shape, expected \[2, 3\]"),
        ({"new.weight": np.zeros(1, np.float32)}, "'new.weight' is not part of the run's model"),
    ],
)
def test_a_model_that_changed_between_rounds_is_left_out_by_name(
    changes: dict[str, Any], text: str, tmp_path: Path
) -> None:
    fleet = loopback(fedobp, PLAIN, tmp_path).rounds(1)
    changed = Reply(fleet.replies["bert"].weights.updated(changes), 5)
    step = fleet._new_step(2, "train", "merge")
    with pytest.raises(RemoteFault, match=f"agent bert: tensor {text}"):
        fedobp.merge(fleet.run, fleet.state, iter([(fleet.info("bert"), changed)]), step)


def full_disk(path: Path, chunks: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_ends_the_step_with_one_sentence_and_the_next_try_gives_the_same(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = loopback(fedobp, RUNNING, folders()).rounds(2)
    fleet = loopback(fedobp, RUNNING, folders()).rounds(1)
    merge = fleet.merge

    def fails_once(*given: Any) -> None:
        before = fleet.digest(fleet.state)
        with monkeypatch.context() as patched:
            patched.setattr(files, "write_at_once", full_disk)
            with pytest.raises(LocalFault, match=r"cannot write .*No space left on device; free some space"):
                merge(*given)
        assert fleet.digest(fleet.state) == before
        merge(*given)

    fleet.merge = fails_once  # type: ignore[method-assign]
    fleet.rounds(1)
    assert fleet.digest(fleet.state) == undisturbed.digest(undisturbed.state)


def test_keeping_an_upload_itself_needs_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The upload is a file already when it is merged; only the mean is new, and a score that runs."""
    fleet = loopback(fedobp, PLAIN, tmp_path).rounds(1)
    written: list[Path] = []
    write = files.write_at_once
    monkeypatch.setattr(files, "write_at_once", lambda path, chunks: (written.append(path), write(path, chunks))[1])
    infos = {name: fleet.info(name) for name in fleet.data}
    fleet.merge(infos, 2, "train")
    assert len(written) <= 1


def test_places_without_values_are_of_no_use_to_an_agent_that_holds_no_model(tmp_path: Path) -> None:
    """Places without values reach a device that holds nothing: a fault of its own, in one sentence."""
    fleet = loopback(fedobp, replace(PLAIN, config=fedobp.Config(q=0.5, form="bits")), tmp_path).rounds(2)
    task = fleet.through(next(t for _, t in fleet.plan((fleet.info("anna"),), 9, "train")), fedobp.Task, "float32")
    with pytest.raises(LocalFault, match="places without values, and this agent holds no model"):
        fedobp.work(task, fedobp.Memory(), fleet.site("anna", 9, "work"))
