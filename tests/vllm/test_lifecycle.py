"""A real server's start, death and end. Runs before the others: each of these has a server of its own."""

import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from annotate.model_client.server import Server, default_python
from core.errors import FailedError
from core.paths import ROOT
from tests.kits.patience import PATIENCE_S
from tests.kits.vllm_kit import MARK, NAME, eventually_gone, marked, tiny_config

PROGRAM = Path(sys.executable).parent / "proccorpus"


def test_a_killed_serve_leaves_no_process(tiny_model: Path, tmp_path: Path):
    mark = uuid4().hex
    arguments = [
        "--model",
        tiny_model,
        "--name",
        NAME,
        "--port",
        "0",
        "--max-model-len",
        "4096",
        "--log-dir",
        tmp_path,
    ]
    with subprocess.Popen(
        [PROGRAM, "vlm", "serve", *arguments, "--max-num-seqs", "4"],
        env=os.environ | {MARK: mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as serve:
        assert serve.stdout is not None
        assert serve.stderr is not None
        line = serve.stdout.readline()  # nothing is said before it is ready, or dead
        assert line.startswith("tiny is ready at http://127.0.0.1:"), serve.stderr.read()
        endpoint = line.split()[4].rstrip(",")
        (card,) = httpx.get(f"{endpoint}/models", trust_env=False, timeout=PATIENCE_S).json()[
            "data"
        ]
        assert (card["id"], card["root"], card["max_model_len"]) == (NAME, str(tiny_model), 4096)
        assert len(marked(mark)) >= 3  # ours, the API's and the engine's
        serve.kill()
        serve.wait(PATIENCE_S)
        progress = serve.stderr.read()
    assert f"{endpoint} starting, " in progress
    assert eventually_gone(mark)


def test_a_model_that_cannot_be_loaded_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    mark = uuid4().hex
    monkeypatch.setenv(MARK, mark)
    (tmp_path / "empty").mkdir()
    with (
        pytest.raises(
            FailedError,
            match=r"(?s)vLLM ended with code 1; the end of .*vllm-0.log:\n.*config.json",
        ),
        Server(tiny_config(tmp_path / "empty", tmp_path)),
    ):
        pytest.fail("it cannot be ready")
    monkeypatch.delenv(MARK)
    assert eventually_gone(mark)


def test_vllm_accepts_the_flags_for_gpus():
    """Only its parser: there need be no GPU here."""
    code = (
        "from pathlib import Path\n"
        "from annotate.model_client.server import ServerConfig, command\n"
        "from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args\n"
        "from vllm.utils.argparse_utils import FlexibleArgumentParser\n"
        "config = ServerConfig(model='Qwen/Qwen3-VL-32B-Instruct', revision='main', tensor_parallel_size=4,\n"
        "                      quantization='fp8', max_num_seqs=64)\n"
        "args = make_arg_parser(FlexibleArgumentParser()).parse_args(command(config, Path('python'), 'gpu', 1)[4:])\n"
        "validate_parsed_serve_args(args)\n"
        "print(args.quantization, args.tensor_parallel_size, args.limit_mm_per_prompt['image'],\n"
        "      args.structured_outputs_config.backend, args.trust_remote_code)\n"
    )
    process = subprocess.run(
        [default_python(), "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert process.stdout.splitlines()[-1:] == ["fp8 4 48 xgrammar False"], process.stderr
