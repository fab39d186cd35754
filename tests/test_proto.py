"""The generated code is what the .proto says, and importable whoever else owns a package named `proto`."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
GENERATED = ("federation_pb2.py", "federation_pb2.pyi", "federation_pb2_grpc.py")
OTHER_OWNER = "OWNER = 'another distribution'\nclass Message: pass\n"
USE = """
import common.pb as pb
from proto import federation_pb2_grpc
import proto
assert pb.Welcome(server="s").SerializeToString() == b"\\n\\x01s"
assert federation_pb2_grpc.FederationStub
print(getattr(proto, "OWNER", "nobody else"))
"""


def test_generated_code_equals_a_fresh_generation(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools", reason="grpcio-tools is of the dev group: uv pip install --group dev")
    to = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "-I", ".", *to, "proto/federation.proto"], cwd=ROOT, check=True
    )
    for name in GENERATED:
        fresh = (tmp_path / "proto" / name).read_text()
        assert (ROOT / "proto" / name).read_text() == fresh, f"proto/{name} is out of date; CONTRIBUTING.md says how"


def test_generator_is_pinned_to_the_oldest_supported_grpcio() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    pin = next(d for d in project["dependency-groups"]["dev"] if str(d).startswith("grpcio-tools"))
    oldest = next(d for d in project["project"]["dependencies"] if d.startswith("grpcio>"))
    assert pin.removeprefix("grpcio-tools==").startswith(oldest.removeprefix("grpcio>=").split(",")[0])


def _run(*path: Path) -> str:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    # -P: the current folder must not help
    ran = subprocess.run([sys.executable, "-P", "-c", USE], env=env, cwd=path[0], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """What our wheel puts into a site folder, as far as the messages need it."""
    site = tmp_path / "ours"
    for package in ("proto", "common"):
        shutil.copytree(ROOT / package, site / package, ignore=shutil.ignore_patterns("__pycache__"))
    return site


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A site folder with another distribution's `proto`, a package with `__init__.py`, as proto-plus has it."""
    package = tmp_path / "theirs" / "proto"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(OTHER_OWNER)
    return package.parent


def test_alone(ours: Path) -> None:
    assert not (ours / "proto" / "__init__.py").exists()
    # proto-plus may be installed in this environment; both answers show that our messages were found
    assert _run(ours) in ("nobody else", "another distribution")


def test_other_owner_found_first(ours: Path, theirs: Path) -> None:
    assert _run(theirs, ours) == "another distribution"


def test_other_owner_found_later(ours: Path, theirs: Path) -> None:
    assert _run(ours, theirs) == "another distribution"


def test_both_installed_into_one_site_folder(ours: Path, theirs: Path) -> None:
    shutil.copytree(theirs, ours, dirs_exist_ok=True)
    assert _run(ours) == "another distribution"


def test_beside_the_real_proto_plus(ours: Path) -> None:
    pytest.importorskip("proto.message", reason="proto-plus is not installed: uv pip install proto-plus")
    env = {**os.environ, "PYTHONPATH": str(ours)}
    program = "import common.pb as pb, proto; print(proto.Message.__module__, pb.Welcome().server == '')"
    ran = subprocess.run([sys.executable, "-P", "-c", program], env=env, cwd=ours, capture_output=True, text=True)
    assert ran.stdout.strip() == "proto.message True", ran.stderr
