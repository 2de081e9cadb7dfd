"""CSV that a spreadsheet opens: no text is a formula, and numbers stay numbers."""

import csv
import io

import pyarrow as pa
import pytest

from core.rows import encode

FORMULAS = [
    '=HYPERLINK("http://evil","x")',
    "+cmd|calc",
    "-1+1",
    "@SUM(1)",
    " =1",
    "\t=1",
    "-",
    "=",
    "\r\n=1",
]
HARMLESS = ["-1.5", "+3e-2", ".5", "Lift = put", "a@b", "'=1", "", "1-1", "è=1"]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_texts(kind: pa.DataType):
    table = pa.table(
        {"text": pa.array([*FORMULAS, *HARMLESS, None], kind), "n": pa.array([-1.5] * 19)}
    )
    rows = list(csv.DictReader(io.StringIO(encode(table, "csv").decode(), newline="")))
    assert [row["text"] for row in rows] == [*(f"'{text}" for text in FORMULAS), *HARMLESS, ""]
    assert {row["n"] for row in rows} == {"-1.5"}
    # Other forms are no spreadsheet's
    assert '"text": "+cmd|calc"' in encode(table, "json").decode()


def test_lists_are_json_text():
    table = pa.table({"steps": [["=1", "-1"], []]})
    assert encode(table, "csv").decode() == '"steps"\n"[""=1"", ""-1""]"\n"[]"\n'
