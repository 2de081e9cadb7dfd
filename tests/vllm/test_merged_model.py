"""A merged adapter, served by a real vLLM: it answers, though a progress head lies beside its weights."""

import json
import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from tests.kits.published_kit import write_adapter
from tests.kits.vllm_kit import MARK, eventually_gone

PROGRAM = Path(sys.executable).parent / "proccorpus"


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl"])
def test_a_merged_adapter_is_served(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = uuid4().hex
    monkeypatch.setenv(MARK, mark)
    write_adapter(tmp_path / "models", family=family)

    def ask(*arguments: str) -> subprocess.CompletedProcess:
        command = [PROGRAM, "model", *arguments, "--workspace", tmp_path, "--format", "json"]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=900, env=os.environ, cwd=tmp_path
        )

    refused = ask("check", "run", "--serve")
    assert (refused.returncode, refused.stderr.splitlines()[-1].partition(":")[0]) == (1, "error")
    assert "merge it first" in refused.stderr
    assert ask("merge", "run", "--out", str(tmp_path / "whole")).returncode == 0
    process = ask("check", str(tmp_path / "whole"), "--serve")
    assert process.returncode == 0, process.stderr[-3000:]
    facts = json.loads(process.stdout)
    assert isinstance(facts["served_answer"], str)
    assert 0 < facts["progress"] < 1
    monkeypatch.delenv(MARK)
    assert eventually_gone(mark)
