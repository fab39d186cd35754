"""Federated methods, one file each, found by name. Adding one edits nothing here."""

import importlib
from functools import cache
from pathlib import Path
from typing import cast

from common.errors import UnknownName
from common.method import Method


@cache
def names() -> tuple[str, ...]:
    return tuple(sorted(p.stem for p in Path(__file__).parent.glob("*.py") if p.stem != "__init__"))


def load(name: str) -> Method:
    """The method's module. Errors raised while importing it pass through.

    Raises:
        UnknownName: this build has no such method.
    """
    if name not in names():
        raise UnknownName("method", name, names())
    return cast(Method, importlib.import_module(f"common.methods.{name}"))
