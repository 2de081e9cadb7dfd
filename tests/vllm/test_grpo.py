"""A step of GRPO whose answers a real vLLM draws, in the trainer's process and on its weights."""

import json
import os
import subprocess
import sysconfig
from pathlib import Path

import pytest

from annotate.model_client.server import default_python
from core.paths import ROOT
from tests.kits.patience import PATIENCE_S
from tests.kits.progresslm_rows import teach

# In the interpreter that has vLLM, before which is our transformers; what it lacks lies behind
PROCESS = """
import json, sys
from pathlib import Path
ours, front = Path(sys.argv[1]), Path(sys.argv[3]) / "front"
front.mkdir(parents=True)
for part in ours.glob("transformers*"):
    (front / part.name).symlink_to(part)
sys.path = [str(front), *sys.path, str(ours)]
from vllm import _custom_ops
_custom_ops._supports_onednn = False  # a CPU's: it packs weights, which then cannot be loaded anew
from tests.training.test_grpo import completions, rewarded
told = {"grpo": {"rollouts": "vllm", "top_p": 1.0, "max_completion": 48, "temperature": 1.0}, "length": 600}
picture = {"min_pixels": 96 * 64, "max_pixels": 96 * 96}
train = {"batch": 4, "accumulation": 2, "steps": 2, "lr": 1e-2, "weight_decay": 30}  # so that weights move
run = rewarded(Path(sys.argv[2]), Path(sys.argv[3]), model=picture, train=train, **told)
print(json.dumps([[p.extra["sampling_ratio"], p.extra["sampling_difference"]] for p in run.curve]))
"""


def test_vllm_draws_from_what_learns(tmp_path: Path) -> None:
    """Six tokens a picture, in prompts of five."""
    taught = teach(tmp_path / "taught", "qwen3_vl", 40, max_px=64, heads=2)
    arguments = [sysconfig.get_path("purelib"), str(taught), str(tmp_path / "run")]
    settings = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
    }
    process = subprocess.run(
        [default_python(), "-c", PROCESS, *arguments],
        cwd=ROOT, env=os.environ | settings | {"VLLM_NO_USAGE_STATS": "1"}, capture_output=True, text=True,
        timeout=PATIENCE_S,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-3000:]
    figures = json.loads(process.stdout.splitlines()[-1])
    print(figures)
    for ratio, difference in figures:
        assert ratio == pytest.approx(1, abs=0.05)
        assert difference < 0.05
