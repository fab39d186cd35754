"""Pages of docs/experiments/, each written from the JSON beside it: what was not run says so."""

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

from common.errors import UnknownName


def names() -> list[str]:
    return sorted(found.name for found in pkgutil.iter_modules(__path__) if not found.name.startswith("_"))


def write(name: str, folder: Path) -> list[Path]:
    """NAME.md and its pictures in the folder, from the folder's JSON."""
    if name not in names():
        raise UnknownName("page", name, names())
    module: ModuleType = importlib.import_module(f"{__name__}.{name}")
    written: list[Path] = module.write(folder)
    return written
