"""Folders for fleets: a check that compares two fleets gives each its own."""

import itertools
from pathlib import Path

import pytest

from tests.methods.contract import Folders


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    count = itertools.count()

    def new() -> Path:
        folder = tmp_path / str(next(count))
        folder.mkdir()
        return folder

    return new
