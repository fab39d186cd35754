"""Rows of equal form as columns, so that each name stands once: {"round": [1, 2], "metrics": {"loss": [0.5, null]}}."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]  # Any: JSON


def of_rows(rows: Sequence[Row]) -> dict[str, Any]:
    """A column for each name, null where a row lacks it; of objects within the rows, columns again."""
    columns: dict[str, Any] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        column = [row.get(name) for row in rows]
        if any(isinstance(value, Mapping) for value in column):
            columns[name] = of_rows([value or {} for value in column])
        else:
            columns[name] = column
    return {name: column for name, column in columns.items() if column != {}}


def to_rows(columns: Row) -> list[dict[str, Any]]:
    """The rows again, without what is null.

    Raises:
        ValueError: the columns differ in length.
    """
    parts = {name: to_rows(column) if isinstance(column, Mapping) else column for name, column in columns.items()}
    if wrong := [name for name, part in parts.items() if not isinstance(part, list)]:
        raise ValueError(f"column {wrong[0]!r} of a table is no list")
    lengths = {name: len(part) for name, part in parts.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"columns of one table differ in length: {lengths}")
    rows = (dict(zip(parts, values, strict=True)) for values in zip(*parts.values(), strict=True))
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


def text(columns: Row, indent: int) -> str:
    """As JSON, a line for each column."""
    pad = " " * indent
    lines = [
        f"{pad} {json.dumps(name)}: "
        + (
            text(column, indent + 1)
            if isinstance(column, Mapping)
            else json.dumps(column, allow_nan=False, separators=(",", ":"))
        )
        for name, column in columns.items()
    ]
    return "{\n" + ",\n".join(lines) + f"\n{pad}}}"
