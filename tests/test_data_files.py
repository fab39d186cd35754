from pathlib import Path

import pytest

from common import data_files


def test_a_named_file_is_sought_beside_the_run_file_then_among_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, beside = tmp_path / "data", tmp_path / "runs"
    for folder in (data, beside):
        folder.mkdir()
    monkeypatch.setenv(data_files.FOLDER_VARIABLE, str(data))
    (data / "first.npz").write_bytes(b"")
    assert data_files.found("first.npz", beside) == data / "first.npz"
    (beside / "first.npz").write_bytes(b"")
    assert data_files.found("first.npz", beside) == beside / "first.npz"
    assert data_files.found(str(data / "first.npz"), beside) == data / "first.npz"
    assert data_files.found("none.npz", beside) == beside / "none.npz"
