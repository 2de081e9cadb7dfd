"""What the client, the schemas and the predictions rely on, by asking a real server.

Also: a real server that cannot start. How one dies and ends is seen where they are started (conftest.py,
test_pipeline.py).
"""

import asyncio
import base64
import json
import re
import subprocess
from itertools import chain
from pathlib import Path
from uuid import uuid4

import httpx
import jsonschema
import pytest

from annotate.config import VlmConfig
from annotate.model_client import endpoints
from annotate.model_client.calls import Image, Reply, Request
from annotate.model_client.client import Client
from annotate.model_client.responses import ResponseStore
from annotate.model_client.server import Server, default_python
from annotate.model_client.tokens import ImageRule
from annotate.vlm import prompts
from benchmarks.vlm_other_ways import blank
from core.errors import FailedError
from core.paths import ROOT
from tests.kits.patience import PATIENCE_S
from tests.kits.vllm_kit import CONTEXT_TOKENS, MARK, NAME, VllmServer, eventually_gone, tiny_config

CONFIG = VlmConfig(model="tiny")
QUESTION = {
    "plan": prompts.plan_reply(CONFIG.vocabulary, CONFIG.max_steps, infer_task=True),
    "segment": prompts.segment_reply(range(1, 9), 4, min_changes=1),
    "refine": prompts.refine_reply(range(1, 9)),
    "verify": prompts.verify_reply(3),
    "reason": prompts.reason_reply([1, 4, 8]),
}
# without a text, which a random model fills with what may be no JSON, so that it is asked again
CHOICE = {
    "type": "object",
    "properties": {"picture": {"type": "integer", "enum": [2, 3]}},
    "required": ["picture"],
    "additionalProperties": False,
}


def request(stage: str, pictures: list[Image], text: str = "Look at these.") -> Request:
    content = list(chain.from_iterable((f"Picture {k + 1}:", p) for k, p in enumerate(pictures)))
    return prompts.request(stage, content, text, QUESTION.get(stage, CHOICE), CONFIG)


def ask(server: VllmServer, folder: Path, *requests: Request) -> tuple[list[Reply], list[dict]]:
    """The replies, asked for side by side, and rows of what they cost."""
    store = ResponseStore(folder)
    config = CONFIG.model_copy(update={"endpoints": (server.url,), "timeout_s": 300.0})

    async def run() -> list[Reply]:
        call_labels = {"build_id": "b", "dataset": "d", "label_run": "r", "prompt_version": "p"}
        async with Client(config, store, **call_labels) as client:
            return await asyncio.gather(*(client.ask(r, 0) for r in requests))

    return asyncio.run(run()), store.calls("b")


def test_every_schema_is_answered_and_a_rerun_asks_nothing(vllm_server, pictures, tmp_path):
    requests_before = vllm_server.requests()
    requests = [request(stage, pictures[:8]) for stage in QUESTION]
    replies, calls = ask(vllm_server, tmp_path, *requests)
    for r, reply in zip(requests, replies, strict=True):
        jsonschema.validate(reply.value, r.schema)
        assert 0 < reply.completion_tokens <= r.max_tokens
    sent = vllm_server.requests() - requests_before
    assert sent >= len(QUESTION)  # a reply that breaks its schema is asked for again
    assert {c["stage"]: c["status"] for c in calls} == dict.fromkeys(QUESTION, "ok")
    second_replies, _ = ask(vllm_server, tmp_path, *requests)
    assert [(r.value, r.cached) for r in second_replies] == [(r.value, True) for r in replies]
    assert vllm_server.requests() - requests_before == sent


@pytest.mark.parametrize("is_told", [True, False])
def test_a_model_that_thinks_is_asked_within_the_context(
    vllm_server, pictures, tmp_path, is_told, monkeypatch
):
    """With 4096 tokens more a reply would be longer than the server's context."""
    if not is_told:
        monkeypatch.setattr(endpoints, "CONTEXT_FIELDS", ())
    store = ResponseStore(tmp_path)
    names = ("call_key", "dataset", "label_run", "stage", "model", "prompt_version")
    call = dict.fromkeys(names, "") | {"build_id": "b", "episode_index": 0, "num_images": 0}
    tokens = {"prompt_tokens": 0, "completion_tokens": 0, "latency_s": 0.0, "cost_usd": 0.0}
    store.settle(store.reserve(call, 0.0), **tokens, status="cut", error=None)
    refused_before = vllm_server.requests(400)
    replies, _ = ask(vllm_server, tmp_path, request("choice", pictures[:8]))
    assert replies[0].value["picture"] in (2, 3)
    assert vllm_server.requests(400) - refused_before == (not is_told)


def test_tokens_of_pictures_are_predicted(vllm_server, tmp_path):
    """Requests that differ in the size of their one picture alone. How many tokens texts have is
    not compared: the tiny model has a vocabulary of its own."""
    sizes = [(96, 96), (480, 270), (480, 360), (33, 47), (1, 1), (20, 480), (1000, 800)]
    requests = [request("choice", [blank(*size)]) for size in sizes]
    replies, _ = ask(vllm_server, tmp_path, *requests)
    processor = json.loads((vllm_server.model_dir / "preprocessor_config.json").read_text())
    size = processor["size"]
    unit_px = processor["patch_size"] * processor["merge_size"]
    rule = ImageRule(size["shortest_edge"], size["longest_edge"], unit_px)
    text_tokens = [
        reply.prompt_tokens - rule.tokens(*size) for reply, size in zip(replies, sizes, strict=True)
    ]
    assert len(set(text_tokens)) == 1


def test_questions_about_the_same_pictures_share_their_prefix(vllm_server, pictures):
    """The stages of an episode differ after the pictures only; the server keeps what it has read."""
    parts = [{"type": "text", "text": "Pictures of one run, seen for the first time in this test."}]
    parts += [{"type": "image_url", "image_url": {"url": data_url(p)}} for p in pictures[:8]]
    usage = []
    for question in ("What is to be done?", "When does it change?"):
        content = [*parts, {"type": "text", "text": question}]
        body = {
            "model": vllm_server.name,
            "max_tokens": 4,
            "messages": [{"role": "user", "content": content}],
        }
        reply = httpx.post(
            f"{vllm_server.url}/chat/completions", json=body, timeout=PATIENCE_S, trust_env=False
        )
        usage.append(reply.raise_for_status().json()["usage"])
    cached = [(u["prompt_tokens_details"] or {}).get("cached_tokens", 0) for u in usage]
    assert cached[0] < 0.2 * usage[0]["prompt_tokens"]
    assert cached[1] > 0.5 * usage[1]["prompt_tokens"]  # whole blocks of it


def data_url(image: Image) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(image.jpeg).decode()


def test_whitespace_is_not_the_models_to_choose(vllm_server, pictures):
    """A random model would write blanks up to the token limit."""
    form = {
        "type": "json_schema",
        "json_schema": {"name": "x", "schema": QUESTION["segment"], "strict": True},
    }
    body = {
        "model": vllm_server.name,
        "max_tokens": 2000,
        "temperature": 1.0,
        "messages": [{"role": "user", "content": "Divide it."}],
        "response_format": form,
    }
    for seed in range(4):
        reply = httpx.post(
            f"{vllm_server.url}/chat/completions",
            json=body | {"seed": seed},
            timeout=PATIENCE_S,
            trust_env=False,
        )
        (choice,) = reply.raise_for_status().json()["choices"]
        assert choice["finish_reason"] == "stop"
        outside_of_texts = re.sub(r'"(?:[^"\\]|\\.)*"', '""', choice["message"]["content"])
        assert re.fullmatch(r"[^\s]+", outside_of_texts)


def test_the_model_is_listed_with_its_name_and_context(vllm_server):
    answer = httpx.get(f"{vllm_server.url}/models", trust_env=False, timeout=PATIENCE_S)
    [card] = answer.json()["data"]
    facts = (NAME, str(vllm_server.model_dir), CONTEXT_TOKENS)
    assert (card["id"], card["root"], card["max_model_len"]) == facts


def test_a_model_that_cannot_be_loaded_is_reported(tmp_path, monkeypatch):
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
