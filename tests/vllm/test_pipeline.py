"""The whole of annotation against the real server: its stages, filled tables, no call repeated.

Also: a release's test split by transformers and by the real server; a step of GRPO whose answers a real vLLM draws,
in the trainer's process and on its weights; a merged adapter, served by a real vLLM: it answers, though a progress
head lies beside its weights; rewards by a real server.
"""

import json
import os
import subprocess
import sys
import sysconfig
from itertools import chain
from operator import attrgetter
from pathlib import Path
from uuid import uuid4

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from annotate.model_client.server import default_python
from core.domain.label import Segment, check_tiling
from core.paths import ROOT, Workspace
from eval.benchmarks.options import EvaluationOptions
from eval.benchmarks.run import Evaluation, evaluate_benchmark
from eval.reward.open import ScorerConfig, ScorerOptions, open_scorer
from eval.reward.scorer import Reward
from eval.runners.start import RunnerConfig
from pipeline.build import run_build
from pipeline.config import load_config
from tests.kits.cli_kit import without_progress
from tests.kits.patience import PATIENCE_S
from tests.kits.progresslm_rows import teach
from tests.kits.published_kit import write_adapter
from tests.kits.vllm_kit import MARK, SAMPLES, VllmServer, eventually_gone
from warehouse.lake import Lake
from warehouse.releases.release import Release, create_release

PROGRAM = Path(sys.executable).parent / "proccorpus"
EPISODES = (0, 5)


def command(server: VllmServer, workspace: Path) -> list[str]:
    build = [
        "build",
        "--source",
        str(SAMPLES / "sim_short"),
        "--name",
        "short",
        "--episodes",
        "0,5",
        "--workers",
        "1",
    ]
    model = ["--annotator", "vlm", "--vlm-endpoint", server.url, "--vlm-model", server.name]
    return [str(PROGRAM), *build, *model, "--workspace", str(workspace)]


def build(server: VllmServer, workspace: Path) -> str:
    return run(command(server, workspace), workspace.parent)


def run(command: list[str], folder: Path) -> str:
    process = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        cwd=folder,
    )
    assert (process.returncode, without_progress(process.stderr)) == (0, ""), process.stderr
    return process.stdout


@pytest.fixture(scope="module")
def built(vllm_server: VllmServer, tmp_path_factory) -> Path:
    workspace = tmp_path_factory.mktemp("pipeline") / "workspace"
    build(vllm_server, workspace)
    return workspace


def test_all_stages_fill_the_tables(built, vllm_server):
    lake = Lake(Workspace(built), read_only=True)
    rows = lake.rows(
        "SELECT stage, count(*), sum(prompt_tokens), sum(completion_tokens), round(avg(latency_s), 3) "
        "FROM vlm_calls WHERE status = 'ok' GROUP BY 1"
    )
    calls = {stage: numbers for stage, *numbers in rows}
    for stage, (count, prompt, completion, latency) in calls.items():
        print(
            f"{stage}: {count} calls, {prompt} prompt and {completion} reply tokens, {latency} s each"
        )
    # One look finds no boundary that another puts elsewhere, so none is refined
    assert set(calls) == {"plan", "segment", "verify", "reason"}
    assert all(prompt > 0 and completion > 0 for _, prompt, completion, _ in calls.values())
    segments: dict[int, list[Segment]] = {}
    planned: dict[int, int] = {}
    for episode, count, *fields in lake.rows(
        "SELECT episode_index, num_planned, name, start_frame, end_frame, kind, completed, step FROM segments "
        "ORDER BY episode_index, segment_index"
    ):
        planned[episode] = count
        segments.setdefault(episode, []).append(Segment(*fields))
    frames = dict(lake.rows("SELECT episode_index, num_frames FROM episodes WHERE status = 'ok'"))
    assert set(segments) == set(frames) == set(EPISODES)
    for episode, found_segments in segments.items():
        check_tiling(found_segments, frames[episode], planned[episode])
    for table in ("progress", "reasoning", "episode_labels", "samples"):
        labelled = {r[0] for r in lake.rows(f"SELECT DISTINCT episode_index FROM {table}")}
        assert labelled == set(EPISODES), table


def test_a_rerun_sends_nothing(built, vllm_server):
    requests_before = vllm_server.requests()
    assert requests_before > 0
    assert "nothing was done again" in build(vllm_server, built)
    assert vllm_server.requests() == requests_before


def test_windows_are_as_large_as_the_server_holds(vllm_server, tmp_path):
    """40 pictures, each by itself, are more than 4096 tokens."""
    config = tmp_path / "build.toml"
    config.write_text(
        f'datasets = ["sim_long"]\nannotator = "vlm"\n[vlm]\nmodel = "{vllm_server.name}"\n'
        f'endpoints = ["{vllm_server.url}"]\npictures_per_s = 5\ncontact_sheet = false\n'
    )
    options = ("--config", str(config), "--episodes", "0", "--workers", "1")
    refused_before = vllm_server.requests(400)
    run([str(PROGRAM), "build", *options, "--workspace", str(tmp_path / "workspace")], tmp_path)
    assert vllm_server.requests(400) == refused_before
    query = "SELECT episode_index, notes[1] FROM episode_labels"
    notes = dict(Lake(Workspace(tmp_path / "workspace"), read_only=True).rows(query))
    note = "segment: a question shows 1/2 of the usual pictures, more do not fit the server"
    assert notes == {0: note}


SCORED_EPISODES = (0, 1, 2, 3, 36, 37, 38, 39)  # 1 and 37 are in the test split
TOKENS = 24


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> tuple[Lake, Release]:
    space = Workspace(tmp_path_factory.mktemp("eval") / "w")
    build = load_config(ROOT / "configs" / "demo.toml")[0].model_copy(
        update={"episodes": SCORED_EPISODES}
    )
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


def test_transformers_and_the_server_say_the_same(corpus, vllm_server, tmp_path):
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


def test_baselines_with_the_same_model_stand_beside_it(corpus, vllm_server, tmp_path):
    only = {"part": ("procvqa_c",), "limit": 6, "baselines": ("direct",)}
    for runner in ("transformers", "vllm"):
        evaluation = evaluated(corpus, vllm_server, runner, tmp_path / f"{runner}.jsonl", **only)
        assert {"tiny", "direct (tiny)", "clock"} <= {e.model for e in evaluation.entries}


@pytest.mark.parametrize("family", ["qwen3_vl", pytest.param("qwen2_5_vl", marks=pytest.mark.long)])
def test_a_merged_adapter_is_served(family, tmp_path, monkeypatch):
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
from vllm.model_executor.layers import utils
# A CPU's: both pack weights, which then cannot be loaded anew. The second does where there are AMX tiles
_custom_ops._supports_onednn = False
utils.check_cpu_sgl_kernel = lambda *shape_and_type: False
from tests.training.test_grpo import completions, rewarded
told = {"grpo": {"rollouts": "vllm", "top_p": 1.0, "max_completion": 48, "temperature": 1.0}, "length": 600}
picture = {"min_pixels": 96 * 64, "max_pixels": 96 * 96}
train = {"batch": 4, "accumulation": 2, "steps": 2, "lr": 1e-2, "weight_decay": 30}  # so that weights move
run = rewarded(Path(sys.argv[2]), Path(sys.argv[3]), model=picture, train=train, **told)
print(json.dumps([[p.extra["sampling_ratio"], p.extra["sampling_difference"]] for p in run.curve]))
"""


def test_vllm_draws_from_what_learns(tmp_path):
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


TASK = "open the drawer"
FRAMES = 6
WINDOW = 3


def counters(server: VllmServer) -> dict[str, float]:
    page = httpx.get(server.url.removesuffix("/v1") + "/metrics", timeout=PATIENCE_S).text
    values_by_name = {
        s.name: s.value
        for s in chain.from_iterable(
            map(attrgetter("samples"), text_string_to_metric_families(page))
        )
    }
    return {
        k: values_by_name[f"vllm:{k}_total"]
        for k in ("mm_cache_queries", "mm_cache_hits", "prefix_cache_hits")
    }


def scored(
    server: VllmServer, frames: list[np.ndarray], responses: Path, steps: tuple[str, ...] = ()
) -> tuple[list[Reward], dict[str, float]]:
    """Rewards of all frames, one after another, and how the server's counters rose."""
    counters_before = counters(server)
    options = ScorerOptions(model=server.name, endpoint=(server.url,), window_frames=WINDOW)
    config = ScorerConfig(options=options, responses=responses)
    with open_scorer(config) as scorer:
        stream = scorer.stream(TASK, 1.0, steps)
        rewards = [
            scorer.score([m])[0]
            for rgb in frames
            if (m := stream.append({"camera": rgb})) is not None
        ]
    counters_after = counters(server)
    return rewards, {k: counters_after[k] - counters_before[k] for k in counters_after}


def test_a_picture_in_several_windows_is_prepared_once(vllm_server, tmp_path):
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (96, 96, 3), np.uint8) for _ in range(FRAMES)]
    rewards, rose = scored(vllm_server, frames, tmp_path / "kept")
    assert len(rewards) == FRAMES
    assert all(
        r.source == "text" and (r.progress is None) == (r.failure is not None) for r in rewards
    )
    num_pictures = sum(min(k, WINDOW) for k in range(1, FRAMES + 1))
    assert rose["mm_cache_queries"] == num_pictures
    assert rose["mm_cache_hits"] == num_pictures - FRAMES
    second_rewards, none = scored(vllm_server, frames, tmp_path / "kept")
    assert second_rewards == rewards
    assert none["mm_cache_queries"] == 0, "replies are kept and not asked for again"
    steps = tuple(
        f"step {k}: " + "reach for the handle and pull it slowly towards the robot " * 4
        for k in range(5)
    )
    _, rose = scored(vllm_server, frames, tmp_path / "kept", steps)
    print(rose)
    assert rose["prefix_cache_hits"] > 0, "the demonstration in words stands before the picture"
