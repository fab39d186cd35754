import json

import pytest

from benchmarks import columns

ROWS = [
    {"round": 1, "metrics": {"loss": 0.5}, "counts": {}},
    {"round": 2, "metrics": {}, "cpu_s": 1.5},
]


def test_each_name_stands_once_and_what_a_row_lacks_is_null() -> None:
    expected = {"round": [1, 2], "metrics": {"loss": [0.5, None]}, "cpu_s": [None, 1.5]}
    assert columns.of_rows(ROWS) == expected


def test_the_rows_come_back_with_empty_objects_for_what_any_row_has() -> None:
    back = columns.to_rows(columns.of_rows(ROWS))
    assert back == [{"round": 1, "metrics": {"loss": 0.5}}, {"round": 2, "metrics": {}, "cpu_s": 1.5}]


def test_no_rows_are_no_columns() -> None:
    assert columns.of_rows([]) == {}
    assert columns.to_rows({}) == []


def test_text_is_json_with_a_line_a_column() -> None:
    table = columns.of_rows(ROWS)
    told = columns.text(table, 2)
    assert json.loads(told) == table
    assert [line.strip() for line in told.splitlines()] == [
        "{",
        '"round": [1,2],',
        '"metrics": {',
        '"loss": [0.5,null]',
        "},",
        '"cpu_s": [null,1.5]',
        "}",
    ]


@pytest.mark.parametrize("column", [5, None, "text", {"loss": 3}])
def test_a_column_that_is_no_list_is_refused(column: object) -> None:
    with pytest.raises(ValueError, match="of a table is no list"):
        columns.to_rows({"round": column})


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"differ in length: \{'round': 2, 'seconds': 1\}"):
        columns.to_rows({"round": [1, 2], "seconds": [0.5]})
