"""What this device is: facts for people and for tables, read without loading anything heavy."""

import os
import platform
from functools import cache
from pathlib import Path

import psutil

from common import pb


@cache
def facts() -> pb.DeviceFacts:
    return pb.DeviceFacts(
        machine=_machine(),
        cpu=_cpu(),
        cores=_cores(),
        memory_bytes=psutil.virtual_memory().total,
        accelerator=_accelerator(),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
    )


def _machine() -> str:
    """The board's name where the system tells one (Raspberry Pi, Jetson), else the architecture."""
    board = _text("/proc/device-tree/model") or _text("/sys/class/dmi/id/product_name")
    return f"{board} ({platform.machine()})" if board else platform.machine()


def _cpu() -> str:
    for line in _text("/proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "Hardware") and value.strip():
            return value.strip()
    return platform.processor() or platform.machine()


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _accelerator() -> str:
    """The first NVIDIA device, or that there is a Tegra one; empty for none."""
    for file in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        for line in _text(str(file)).splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "Model":
                return value.strip()
    return "NVIDIA Tegra" if Path("/dev/nvhost-gpu").exists() else ""


def _text(path: str) -> str:
    """The file's text; empty where there is none: another system, or not ours to read."""
    try:
        return Path(path).read_text("utf-8", "replace").replace("\x00", "").strip()
    except OSError:
        return ""
