"""The GPU's script, tiny on a CPU, where nothing but torch and transformers is installed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from core.paths import ROOT

ABSENT = ("accelerate", "peft", "pydantic", "cv2", "duckdb", "pyarrow", "matplotlib")
ALONE = """
import runpy, sys
for name in {absent!r}:
    sys.modules[name] = None  # importing it fails, as where it is not installed
sys.argv = ["gpu_check.py", "--tiny", "--out", {out!r}]
runpy.run_path({script!r}, run_name="__main__")
"""


@pytest.mark.slow
def test_the_script_runs_and_all_its_checks_hold(tmp_path: Path) -> None:
    out, script = tmp_path / "figures.json", ROOT / "benchmarks" / "gpu_check.py"
    code = ALONE.format(absent=ABSENT, out=str(out), script=str(script))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(out.read_text())
    rows = {row["what"]: row for row in report["rows"]}
    assert {"packed, sdpa", "like length", "plain padding", "packed, LoRA and head", "resume"} <= rows.keys()
    assert rows["packed, sdpa"]["filled"] > rows["plain padding"]["filled"]
    assert rows["resume"]["resumed_differs_by"] < 1e-6
    assert "| packed, sdpa |" in done.stdout
