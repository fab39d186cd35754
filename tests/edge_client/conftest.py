from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_device import Device
from scripted_federation import Federation


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Federation]:
    server = Federation(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def device(tmp_path: Path, server: Federation) -> Device:
    return Device(tmp_path / "device", server)
