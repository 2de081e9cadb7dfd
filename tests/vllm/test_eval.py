"""A release's test split by transformers and by the real server: the same questions and, nearly, the same words."""

import json
from pathlib import Path

import pytest

from core.paths import ROOT, Workspace
from eval.benchmarks.options import EvaluationOptions
from eval.benchmarks.run import Evaluation, evaluate_benchmark
from eval.runners.start import RunnerConfig
from pipeline.build import run_build
from pipeline.config import load_config
from tests.kits.vllm_kit import VllmServer
from warehouse.lake import Lake
from warehouse.releases.release import Release, create_release

EPISODES = (0, 1, 2, 3, 36, 37, 38, 39)  # 1 and 37 are in the test split
TOKENS = 24


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lake, Release]:
    space = Workspace(tmp_path_factory.mktemp("eval") / "w")
    build = load_config(ROOT / "configs" / "demo.toml")[0].model_copy(update={"episodes": EPISODES})
    assert run_build(space, [build], workers=1).failed == []
    lake = Lake(space)
    return lake, create_release(lake, "r1")


def evaluated(
    corpus: tuple[Lake, Release],
    server: VllmServer,
    runner: str,
    out: Path,
    **runner_options: object,
) -> Evaluation:
    lake, release = corpus
    endpoint = () if runner == "transformers" else (server.url,)
    options = EvaluationOptions(
        benchmark="procvqa-id",
        runner=runner,
        endpoint=endpoint,
        max_tokens=TOKENS,
        out=out,
        **runner_options,  # type: ignore[arg-type]
    )
    folder = server.model_dir if runner == "transformers" else None
    return evaluate_benchmark(
        lake, RunnerConfig(server.name, options, folder, longest_px=96), release
    )


def responses(path: Path) -> dict[str, dict]:
    return {row["meta_data"]["key"]: row for row in map(json.loads, path.read_text().splitlines())}


def common(a: str, b: str) -> float:
    """Share of the longer text that both begin with."""
    until = next(
        (k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )
    if a != b:
        return until / max(len(a), len(b))
    return 1.0


def test_transformers_and_the_server_say_the_same(
    corpus: tuple[Lake, Release], vllm_server: VllmServer, tmp_path: Path
) -> None:
    evaluated(corpus, vllm_server, "transformers", tmp_path / "t.jsonl")
    requests_before = vllm_server.requests()
    evaluated(corpus, vllm_server, "vllm", tmp_path / "v.jsonl")
    local_rows = responses(tmp_path / "t.jsonl")
    server_responses = responses(tmp_path / "v.jsonl")
    assert list(local_rows) == list(server_responses)
    num_asked = vllm_server.requests() - requests_before
    (sent,) = corpus[0].rows(
        "SELECT count(*), count(DISTINCT call_key) FROM vlm_calls WHERE stage = 'eval'"
    )
    assert sent == (num_asked, num_asked), "equal questions are asked once"
    assert 0.8 * len(local_rows) < num_asked <= len(local_rows)
    assert [r["prompt_tokens"] for r in local_rows.values()] == [
        r["prompt_tokens"] for r in server_responses.values()
    ]
    shares = [
        common(local_rows[k]["response"], server_responses[k]["response"]) for k in local_rows
    ]
    equal = sum(s == 1 for s in shares) / len(shares)
    before_parting = sum(shares) / len(shares)
    print(
        f"{len(local_rows)} questions: {equal:.0%} word for word, {before_parting:.0%} of the text before they part"
    )
    for k in local_rows:
        if local_rows[k]["response"] != server_responses[k]["response"]:
            print(repr(local_rows[k]["response"]), repr(server_responses[k]["response"]))
    assert equal >= 0.8
    evaluated(corpus, vllm_server, "vllm", tmp_path / "again.jsonl")
    assert (
        vllm_server.requests() - requests_before == num_asked
    )  # another file, the same answers: from the store
    assert responses(tmp_path / "again.jsonl").keys() == server_responses.keys()


def test_baselines_with_the_same_model_stand_beside_it(
    corpus: tuple[Lake, Release], vllm_server: VllmServer, tmp_path: Path
) -> None:
    only = {"part": ("procvqa_c",), "limit": 6, "baselines": ("direct",)}
    for runner in ("transformers", "vllm"):
        evaluation = evaluated(corpus, vllm_server, runner, tmp_path / f"{runner}.jsonl", **only)
        assert {"tiny", "direct (tiny)", "clock"} <= {e.model for e in evaluation.entries}
