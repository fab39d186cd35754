"""What a result was made with: commit, versions, machine."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import psutil

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


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def facts() -> dict[str, str | int]:
    return {
        "system": platform.platform(),
        "machine": platform.machine(),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "memory_bytes": psutil.virtual_memory().total,
    }


def _cpu_model() -> str:
    """Linux tells it in /proc; elsewhere platform knows."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.lower().startswith(("model name", "hardware")):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def _git(*command: str) -> str:
    done = subprocess.run(["git", "-C", str(SOURCE), *command], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
