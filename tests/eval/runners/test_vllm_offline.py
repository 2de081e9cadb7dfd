"""vLLM in this process, by a stand-in for its engine: no barrier, pictures as they are, a dead engine ends the run."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from eval.benchmarks.question import PictureFile
from eval.runners.prompt import PictureLimits, Prompt, Sampling, load_picture
from eval.runners.vllm_offline import Engine, EngineLostError, VllmRunner
from tests.kits.bench_kit import picture
from tests.kits.reward_kit import make_checkpoint


class StandInEngine:
    """`AsyncLLM` as the runner uses it; a prompt with `slow` in it is answered last of all, `bad` fails alone."""

    dies_at: int | None = None  # the number of the request that kills it

    def __init__(self, arguments: Any) -> None:
        self.arguments, self.asked, self.errored, self.is_down = arguments, [], False, False
        self.others = asyncio.Event()

    async def generate(self, request: dict[str, Any], params: Any, name: str) -> AsyncIterator[Any]:
        self.asked.append((request, params))
        number = len(self.asked)
        if self.errored or number == self.dies_at:
            self.errored = True
            raise RuntimeError("EngineCore encountered an issue")
        if "bad" in request["prompt"]:
            raise ValueError("the prompt is too long")
        if "slow" in request["prompt"]:
            await self.others.wait()
        completion = SimpleNamespace(text=f"{params.max_tokens}", token_ids=[1, 2], logprobs=None)
        yield SimpleNamespace(outputs=[completion], prompt_token_ids=[1] * 7)

    def shutdown(self) -> None:
        self.is_down = True


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> type[StandInEngine]:
    class Own(StandInEngine):
        pass

    def module(name: str, **names: Any) -> None:
        made = ModuleType(name)
        made.__dict__.update(names)
        monkeypatch.setitem(sys.modules, name, made)

    module("vllm", SamplingParams=lambda **fields: SimpleNamespace(**fields))
    module("vllm.engine")
    module("vllm.engine.arg_utils", AsyncEngineArgs=lambda **fields: SimpleNamespace(**fields))
    module("vllm.v1")
    module("vllm.v1.engine")
    module("vllm.v1.engine.async_llm", AsyncLLM=SimpleNamespace(from_engine_args=Own))
    return Own


@pytest.fixture
def runner(stand_in: type[StandInEngine], tmp_path: Path) -> Iterator[VllmRunner]:
    folder = make_checkpoint(tmp_path / "model")
    sampling = Sampling(0.6, 9, top_p=0.9, top_k=50)
    with VllmRunner(folder, sampling, PictureLimits(), Engine(data_parallel_size=2)) as made:
        yield made
    assert made.engine.is_down


def prompts(folder: Path, count: int, *words: str) -> list[Prompt]:
    picture(folder / "0.jpg", 0.5)
    shown = (PictureFile(folder / "0.jpg"),)
    named = dict(enumerate(words))
    return [Prompt(f"k{k}", f"<image>\nHow far? {named.get(k, '')}", shown) for k in range(count)]


def test_replies_come_as_they_are_ready(runner: VllmRunner, tmp_path: Path) -> None:
    """A straggler holds nothing up: there were batches of 256, of which the longest held up all."""
    asked = prompts(tmp_path, 600, "slow", "bad")
    keys = []
    for reply in runner.answer(asked):
        keys.append(reply.key)
        if len(keys) == 599:
            runner.loop.call_soon_threadsafe(runner.engine.others.set)
    assert keys[-1] == "k0"
    assert set(keys) == {p.key for p in asked}
    # Asked again on the same engine; one that fails is a reply with its reason
    errors = {r.key: r.error for r in runner.answer(asked[1:3])}
    assert errors == {"k1": "ValueError: the prompt is too long", "k2": None}


def test_pictures_go_as_pixels_and_the_sampling_with_them(runner: VllmRunner, tmp_path: Path) -> None:
    (reply,) = runner.answer(prompts(tmp_path, 1))
    assert (reply.text, reply.prompt_tokens, reply.completion_tokens) == ("9", 7, 2)
    ((request, params),) = runner.engine.asked
    (shown,) = request["multi_modal_data"]["image"]
    assert np.array_equal(np.asarray(shown), load_picture(PictureFile(tmp_path / "0.jpg"), PictureLimits()))
    assert "<|image_pad|>" in request["prompt"]
    assert (params.temperature, params.top_p, params.top_k, params.repetition_penalty) == (0.6, 0.9, 50, 1.0)
    arguments = runner.engine.arguments
    assert (arguments.data_parallel_size, arguments.generation_config) == (2, "vllm")
    assert "data_parallel_size" not in runner.settings


def test_a_dead_engine_ends_the_run(stand_in: type[StandInEngine], runner: VllmRunner, tmp_path: Path) -> None:
    """All that came after it were rows with an error, and the run was scored."""
    stand_in.dies_at = 40
    runner.at_once = 8
    given: list[str | None] = []

    def read() -> None:
        for reply in runner.answer(prompts(tmp_path, 200)):
            given.append(reply.error)

    with pytest.raises(EngineLostError, match=r"has died .*EngineCore encountered an issue.*run the same"):
        read()
    assert 0 < len(given) < 40
    assert set(given) == {None}
    assert EngineLostError("x").exit_code == 1
