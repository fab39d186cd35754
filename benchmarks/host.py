"""What a result was made with: commit, versions, machine."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from edge_client import device

SOURCE = Path(__file__).resolve().parent.parent
DISTRIBUTIONS = ("edgefed", "numpy", "grpcio", "protobuf", "torch", "torchvision", "onnxruntime", "scikit-learn")


def commit() -> str:
    """The commit of the source that runs, "-dirty" when it was changed since; empty for an installed copy."""
    if not (SOURCE / ".git").exists():
        return ""
    try:
        hash_ = _git("rev-parse", "HEAD")
        return f"{hash_}-dirty" if _git("status", "--porcelain", "--untracked-files=no") else hash_
    except (OSError, subprocess.SubprocessError):
        return ""  # no git here: the versions still say what ran


def changes() -> str:
    """What differs from that commit, as a patch."""
    try:
        return _git("diff", "HEAD") if (SOURCE / ".git").exists() else ""
    except (OSError, subprocess.SubprocessError):
        return ""


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def facts() -> dict[str, Any]:  # Any: texts and numbers
    facts = device.facts()
    return {field.name: getattr(facts, field.name) for field in facts.DESCRIPTOR.fields}


def _git(*command: str) -> str:
    done = subprocess.run(["git", "-C", str(SOURCE), *command], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
