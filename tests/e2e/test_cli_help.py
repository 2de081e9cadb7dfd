"""`--help` of every command, and what asking for it costs."""

import subprocess
import sys
from pathlib import Path

from core.paths import ROOT
from tests.kits.cli_kit import proccorpus


def test_what_is_left_out_can_be_brought_back() -> None:
    code = """
import duckdb, pyarrow
from core.imports import bring_pandas_back, leave_out_pandas
leave_out_pandas()
try:
    import pandas
    raise AssertionError("pandas was imported")
except ModuleNotFoundError as e:
    print(e)
assert duckdb.connect().execute("SELECT ?", ["x"]).fetchall() == [("x",)]
assert pyarrow.array([1, None]).null_count == 1
bring_pandas_back()
import pandas
print(pandas.DataFrame({"a": [1]})["a"].sum(), duckdb.connect().execute("SELECT ?", [pandas.NaT]).fetchall())
"""
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert process.stdout.splitlines() == [
        "pandas is left out of this process: core.imports",
        "1 [(None,)]",
    ]


def test_an_option_that_is_none_is_told_with_the_nearest_one(away: Path) -> None:
    result = proccorpus("build", "--sorce", "x", cwd=away)
    assert (result.code, result.out) == (2, "")
    assert (
        result.err
        == "error: No such option: --sorce. Did you mean --source? proccorpus build --help says more\n"
    )
