"""The bill of `build --dry-run`, before anything was asked and after the first runs.

Also: the corpus in Python; the asset `rewards` and the calibration after training, on the real thing.
"""

import json
import subprocess
import sys
from dataclasses import replace
from itertools import product
from typing import Any

import dagster as dg
import numpy as np
import pytest

import proccorpus as pc
from assets.defs.models.assets import rewards
from assets.defs.resources import CorpusResource
from core.paths import Workspace
from core.tables import TABLES
from eval.reward.open import ScorerConfig
from eval.reward.reference_scorer import ReferenceScorer
from pipeline.config import load_config, resolve
from pipeline.episode_rewards import score_selection
from pipeline.prediction import model_cost
from tests.kits.cli_kit import called
from tests.kits.made_corpus import Made, built, with_stages
from tests.kits.reward_kit import make_checkpoint
from tests.kits.tiny_lerobot import LENGTHS, video_path
from warehouse.exports.options import Selection
from warehouse.lake import open_lake

CONFIG = """datasets = ["sim_short"]
annotator = "vlm"
[vlm]
model = "m"
runs_per_task = "all"
cheap_models = ["small"]
[vlm.price]
usd_per_million_prompt_tokens = 2
[vlm.cheap_price]
usd_per_million_prompt_tokens = 1
"""
EPISODES = (0, 1, 2, 3)


def test_the_bill_is_what_the_first_runs_took(tmp_path):
    (tmp_path / "vlm.toml").write_text(CONFIG)
    build = load_config(tmp_path / "vlm.toml")[0].model_copy(update={"episodes": EPISODES})
    space = Workspace(tmp_path / "workspace")
    listed = model_cost(None, build, space.sources)
    assert (listed.episodes, listed.labelled, listed.measured) == (len(EPISODES), 0, 0)
    assert (
        "4 episodes to annotate; 0 are labelled already. What one takes is not known"
        in listed.summary()
    )
    built(with_stages(build, annotator="motion"), space)
    lake = open_lake(space)
    assert model_cost(lake, resolve(lake, build), space.sources) == listed

    run = build.label_run().id
    key_columns = {"dataset": "sim_short", "chunk": 0, "label_run": run}
    label_rows = [key_columns | {"episode_index": k, "plan": ["a", "b"]} for k in (0, 1)]
    span = {
        "name": "a",
        "start_frame": 0,
        "end_frame": 9,
        "num_planned": 2,
        "kind": "step",
        "completed": True,
    }
    spans = [
        key_columns | span | {"episode_index": k, "segment_index": i}
        for k, i in product((0, 1), range(3))
    ]
    # Another build asked the same once more, and one question had no answer
    call = {"dataset": "sim_short", "label_run": run, "num_images": 1, "prompt_tokens": 1000}
    sendings = product(
        (0, 1), ("plan1", "segment1", "segment2"), (("b1", "cut"), ("b2", "ok"), ("b3", "ok"))
    )
    calls = []
    for k, name, (build_id, status) in sendings:
        of_call = {
            "episode_index": k,
            "stage": name[:-1],
            "model": "small" if name == "plan1" else "m",
            "call_key": f"{k}{name}",
            "completion_tokens": 50,
        }
        calls.append(call | of_call | {"build_id": build_id, "status": status})
    rows = {"episode_labels": label_rows, "segments": spans, "vlm_calls": calls}
    lake.upsert("labels", **{name: TABLES[name].rows(r) for name, r in rows.items()})
    left = model_cost(lake, build, space.sources)
    assert (left.episodes, left.labelled, left.measured) == (2, 2, 2)
    facts = left.facts()
    names = ("model", "stage", "calls", "prompt_tokens", "completion_tokens")
    assert [tuple(map(row.get, names)) for row in facts["stages"]] == [
        ("m", "segment", 4, 4000, 200),
        ("small", "plan", 2, 2000, 100),
        ("all", "all", 6, 6000, 300),
    ]
    assert facts["usd"] == pytest.approx(4000 * 2e-6 + 2000 * 1e-6)
    assert "2 are labelled already; as measured on 2: 0.00 GPU-hours, 0.01 USD" in left.summary()
    anew = model_cost(lake, build, space.sources, from_scratch=True)
    assert (anew.episodes, anew.facts()["stages"][-1]["calls"]) == (4, 12)


def test_the_asset_scores_a_chunk_once(own, tmp_path, instance):
    folder = make_checkpoint(tmp_path / "bars")
    instance.add_dynamic_partitions("chunks", ["tiny:00001"])

    def materialized() -> dict[str, object]:
        result = dg.materialize(
            [rewards],
            partition_key="tiny:00001",
            instance=instance,
            resources={"corpus": CorpusResource(root=str(own.space.root))},
            run_config={"ops": {"rewards": {"config": {"model": str(folder), "score_fps": 2.5}}}},
        )
        (event,) = result.asset_materializations_for_node("rewards")
        return {k: v.value for k, v in event.metadata.items()}

    first = materialized()
    assert (first["episodes"], first["scored_now"], first["failures"]) == (2, 2, 0)
    lake = open_lake(own.space)
    kept_rows = lake.rows(
        "SELECT episode_index, count(*), min(done), max(frame_index) FROM eval_predictions WHERE eval_run = ? "
        "GROUP BY 1 ORDER BY 1",
        [first["run"]],
    )
    assert [(e, n, last) for e, n, _, last in kept_rows] == [(2, 16, 29), (3, 7, 11)]
    assert all(0 < result < 1 for _, _, result, _ in kept_rows)
    assert materialized() | {"scored_now": 2, "moments": first["moments"]} == first
    everything = Selection(allow=("unknown",))
    exported = score_selection(open_lake(own.space), ScorerConfig(folder), everything, 2.5)
    assert (exported.run, exported.episodes, exported.scored_now) == (
        first["run"],
        5,
        3,
    )  # what the asset has scored, too


@pytest.fixture
def corpus(undivided: Made) -> pc.Corpus:
    return pc.open(undivided.space.root)


def test_an_episode_has_its_label_and_shows_it(corpus):
    assert corpus.datasets == ["tiny"]
    episodes = list(corpus["tiny"])
    assert [e.num_frames for e in episodes] == list(LENGTHS)
    assert len(corpus["tiny"]) == len(LENGTHS)
    episode = corpus["tiny"][2]
    assert (episode.segments[0].start_frame, episode.segments[-1].end_frame) == (0, LENGTHS[2])
    assert episode.progress.shape == (LENGTHS[2],)
    assert episode.progress.dtype == np.float32
    assert episode.progress[-1] == pytest.approx(1.0)
    assert episode.show().width > 800
    segments = corpus.labels("tiny").filter(corpus.labels("tiny")["episode_index"].to_numpy() == 2)
    assert segments["name"].to_pylist() == [s.name for s in episode.segments]


def test_questions_and_samples_are_those_of_the_command(corpus):
    counted = corpus.sql(
        "SELECT split, sum(samples)::INT FROM shards GROUP BY 1 ORDER BY 1"
    ).fetchall()
    assert counted
    assert [(split, len(list(corpus.samples(split)))) for split, _ in counted] == counted
    with pytest.raises(pc.UserError, match=r"no samples in split 'tests'; there are .*train"):
        corpus.samples("tests")


def test_a_correction_becomes_the_label_and_nobody_is_overwritten(corpus):
    label_before = corpus["tiny"][0]
    first, *later_segments = label_before.segments
    cut = first.end_frame - 1
    moved_segments = [
        replace(first, end_frame=cut),
        replace(later_segments[0], start_frame=cut),
        *later_segments[1:],
    ]
    label_before.correct(moved_segments, label_before.plan, author="anna")
    label_after = corpus.build("tiny", workers=1)["tiny"][0]
    assert label_after.label_run == "human/tiny"
    assert [s.end_frame for s in label_after.segments] == [s.end_frame for s in moved_segments]
    with pytest.raises(pc.UserError, match="anna saved a correction of episode 0"):
        label_before.correct(label_before.segments, label_before.plan)


def test_exports_take_the_options_of_their_command(corpus, tmp_path):
    exported = corpus.export.lerobot(
        tmp_path / "out", dataset=("tiny",), allow_licence=("unknown",)
    )
    assert exported.episodes == len(LENGTHS)
    assert (tmp_path / "out" / "meta" / "info.json").is_file()
    with pytest.raises(AttributeError, match="no export 'lerobt'; did you mean lerobot"):
        _ = corpus.export.lerobt


def test_a_folder_is_built(made, tmp_path):
    built = pc.build(
        made.source, tmp_path / "workspace", name="mine", annotator="motion", workers=1
    )
    assert built.datasets == ["mine"]
    assert len(built["mine"]) == len(LENGTHS)
    assert built["mine"][0].plan == pc.open(made.space.root)["tiny"][0].plan


def test_a_foreign_package_of_our_name_is_refused(tmp_path):
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "__init__.py").touch()
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import proccorpus"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == 1
    assert "proccorpus needs its own package `core`" in process.stderr


def test_a_video_takes_its_task_from_the_run_that_it_is_like(made, tmp_path, capsys, monkeypatch):
    tasks: list[str] = []
    stream = ReferenceScorer.stream

    def noted(self: ReferenceScorer, task: str, *arguments: Any, **keywords: Any) -> Any:
        tasks.append(task)
        return stream(self, task, *arguments, **keywords)

    monkeypatch.setattr(ReferenceScorer, "stream", noted)
    video = video_path(made.source, 1)
    episode = pc.open(made.space.root)["tiny"][1]
    assert episode.task
    out = tmp_path / "rows.jsonl"
    likes = ("--like", "tiny/1", "--like", "tiny/3")
    words = (*likes, "--out", out, "--workspace", made.space.root)
    assert called(capsys, "reward", video, *words).code == 0
    assert {json.loads(line)["source"] for line in out.read_text().splitlines()} == {"shown"}
    assert called(capsys, "reward", video, "--task", "Something else.", *words).code == 0
    pc.reward(video, like=episode)
    pc.reward(video, like="tiny/1", workspace=made.space.root)
    assert tasks == [episode.task, "Something else.", episode.task, episode.task]
    refused = called(capsys, "reward", video, "--baseline", "clock", "--workspace", made.space.root)
    assert (refused.code, "a video needs --task" in refused.err) == (2, True)


def test_a_video_is_scored_like_a_shown_episode(made):
    episode = pc.open(made.space.root)["tiny"][0]
    rows = pc.reward(video_path(made.source, 0), episode.task or "", like=episode, fps=5.0)
    assert len(rows) == LENGTHS[0]
    assert rows[0]["progress"] < 0.2
    assert rows[-1]["progress"] > 0.8
    by_clock = pc.reward(video_path(made.source, 0), "x", baseline="clock")
    assert [by_clock[0]["progress"], by_clock[-1]["progress"]] == [0.0, 1.0]
    with pytest.raises(pc.UserError, match="give either --like, --model or --baseline"):
        pc.reward(video_path(made.source, 0), "x", like=episode, baseline="clock")
