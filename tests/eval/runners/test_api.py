"""Any OpenAI-compatible server, by the stand-in: stored replies, budget, faults, log-probabilities."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from annotate.config import Price, VlmConfig
from annotate.model_client.calls import VlmError
from core.errors import UserError
from eval.benchmarks.question import Question
from eval.runners.api import ApiRunner, Books
from eval.runners.methods import METHODS, collect, run_settings
from eval.runners.prompt import PictureLimits, Sampling
from tests.kits.vlm_standin import Fault, StandIn, serving

pytestmark = pytest.mark.usefixtures("short_pauses")


@pytest.fixture
def server() -> Iterator[StandIn]:
    with serving(StandIn()) as server:
        yield server


def runner(
    server: StandIn,
    folder: Path,
    sampling: Sampling = Sampling(max_tokens=64),
    is_vllm: bool = False,
    **config: object,
) -> ApiRunner:
    vlm = VlmConfig(model="stand-in", endpoints=(server.url,), max_concurrency=4, **config)  # type: ignore[arg-type]
    books = Books(folder / "responses", "b", "progress-bench")
    return ApiRunner(vlm, sampling, PictureLimits(), books, is_vllm=is_vllm)


def run(asked: ApiRunner, questions: list[Question], out: Path, method: str = "question"):
    way = METHODS[method]
    return collect(asked, way, questions, out, run_settings(asked, "stand-in", way, questions))


def test_a_budget_ends_it_and_answers_are_kept(
    server: StandIn, questions: list[Question], tmp_path: Path
) -> None:
    with pytest.raises(VlmError, match="budget of 5 calls"):
        run(runner(server, tmp_path, max_calls=5), questions, tmp_path / "p.jsonl")
    assert len(server.received) == 5
    richer = runner(server, tmp_path, max_calls=100, price=Price(usd_per_million_prompt_tokens=1.0))
    run(richer, questions, tmp_path / "p.jsonl")
    assert len(server.received) == len(set(server.received))  # none was sent twice


def test_a_refused_question_fails_alone(questions: list[Question], tmp_path: Path) -> None:
    with serving(
        StandIn(faults=[Fault.parse("refused:after=2:first=1"), Fault.parse("500:0.2")])
    ) as server:
        same_view = [q for q in questions if q.part == "visual_same_view"]
        rows = run(runner(server, tmp_path), same_view, tmp_path / "p.jsonl")
    assert rows is not None
    errors = [r["error"] for r in rows if "error" in r]
    assert len(errors) == 1
    assert "no picture can be read" in errors[0]


def test_topreward_reads_log_probabilities(
    server: StandIn, questions: list[Question], tmp_path: Path
) -> None:
    rows = run(runner(server, tmp_path), questions[:4], tmp_path / "t.jsonl", "topreward")
    assert rows is not None
    assert all(0 < r["value"] < 1 for r in rows)
    assert {(b["logprobs"], b["top_logprobs"], b["max_tokens"]) for b in server.seen} == {
        (True, 20, 1)
    }


def test_a_server_without_log_probabilities_says_so(
    questions: list[Question], tmp_path: Path
) -> None:
    with (
        serving(StandIn(parse=False)) as server,
        pytest.raises(UserError, match="gives no log-probabilities"),
    ):
        run(runner(server, tmp_path), questions[:2], tmp_path / "t.jsonl", "topreward")


def test_requests_carry_the_sampling(
    server: StandIn, questions: list[Question], tmp_path: Path
) -> None:
    """vLLM's servers are told all of it: what is left out would be the checkpoint's generation_config.json."""
    run(runner(server, tmp_path, is_vllm=True), questions[:2], tmp_path / "v.jsonl")
    names = ("temperature", "top_p", "top_k", "repetition_penalty", "min_p")
    assert {tuple(b[name] for name in names) for b in server.seen} == {(0.0, 1.0, 0, 1.0, 0.0)}
    server.seen.clear()
    run(runner(server, tmp_path), questions[:2], tmp_path / "a.jsonl")
    assert server.seen
    assert all(not {"top_p", "top_k", "repetition_penalty"} & set(b) for b in server.seen)
    server.seen.clear()
    hot_runner = runner(server, tmp_path, sampling=Sampling(0.6, 64, top_p=0.9))
    run(hot_runner, questions[:2], tmp_path / "p.jsonl")
    assert {(b["temperature"], b["top_p"]) for b in server.seen} == {(0.6, 0.9)}
    assert hot_runner.settings["top_p"] == 0.9
