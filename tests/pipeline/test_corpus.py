"""The corpus in Python: what `import proccorpus` gives, on a built workspace."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import proccorpus as pc
from eval.reward.reference_scorer import ReferenceScorer
from tests.kits.cli_kit import called
from tests.kits.made_corpus import Made
from tests.kits.tiny_lerobot import LENGTHS, video_path


@pytest.fixture
def corpus(own: Made) -> pc.Corpus:
    return pc.open(own.space.root)


def test_an_episode_has_its_label_and_shows_it(corpus: pc.Corpus):
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


def test_questions_and_samples_are_those_of_the_command(corpus: pc.Corpus):
    counted = corpus.sql(
        "SELECT split, sum(samples)::INT FROM shards GROUP BY 1 ORDER BY 1"
    ).fetchall()
    assert counted
    assert [(split, len(list(corpus.samples(split)))) for split, _ in counted] == counted
    with pytest.raises(pc.UserError, match=r"no samples in split 'tests'; there are .*train"):
        corpus.samples("tests")


def test_a_correction_becomes_the_label_and_nobody_is_overwritten(corpus: pc.Corpus):
    label_before = corpus["tiny"][0]
    first, *later_segments = label_before.segments
    cut = first.end_frame - 1
    moved_segments = [
        replace(first, end_frame=cut),
        replace(later_segments[0], start_frame=cut),
        *later_segments[1:],
    ]
    label_before.correct(moved_segments, label_before.plan, author="anna")
    label_after = corpus.build("tiny")["tiny"][0]
    assert label_after.label_run == "human/tiny"
    assert [s.end_frame for s in label_after.segments] == [s.end_frame for s in moved_segments]
    with pytest.raises(pc.UserError, match="anna saved a correction of episode 0"):
        label_before.correct(label_before.segments, label_before.plan)


def test_exports_take_the_options_of_their_command(corpus: pc.Corpus, tmp_path: Path):
    exported = corpus.export.lerobot(
        tmp_path / "out", dataset=("tiny",), allow_licence=("unknown",)
    )
    assert exported.episodes == len(LENGTHS)
    assert (tmp_path / "out" / "meta" / "info.json").is_file()
    with pytest.raises(AttributeError, match="no export 'lerobt'; did you mean lerobot"):
        _ = corpus.export.lerobt


def test_a_folder_is_built(made: Made, tmp_path: Path):
    built = pc.build(
        made.source, tmp_path / "workspace", name="mine", annotator="motion", workers=1
    )
    assert built.datasets == ["mine"]
    assert len(built["mine"]) == len(LENGTHS)
    assert built["mine"][0].plan == pc.open(made.space.root)["tiny"][0].plan


def test_a_foreign_package_of_our_name_is_refused(tmp_path: Path):
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "__init__.py").touch()
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import proccorpus"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == 1
    assert "proccorpus needs its own package `core`" in process.stderr


def test_a_video_takes_its_task_from_the_run_that_it_is_like(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    tasks: list[str] = []
    stream = ReferenceScorer.stream

    def noted(self: ReferenceScorer, task: str, *arguments: Any, **keywords: Any) -> Any:
        tasks.append(task)
        return stream(self, task, *arguments, **keywords)

    monkeypatch.setattr(ReferenceScorer, "stream", noted)
    video = video_path(made.source, 1)
    episode = pc.open(made.space.root)["tiny"][1]
    assert episode.task
    words = ("--like", "tiny/1", "--out", tmp_path / "rows.jsonl", "--workspace", made.space.root)
    assert called(capsys, "reward", video, *words).code == 0
    assert called(capsys, "reward", video, "--task", "Something else.", *words).code == 0
    pc.reward(video, like=episode)
    pc.reward(video, like="tiny/1", workspace=made.space.root)
    assert tasks == [episode.task, "Something else.", episode.task, episode.task]
    refused = called(capsys, "reward", video, "--baseline", "clock", "--workspace", made.space.root)
    assert (refused.code, "a video needs --task" in refused.err) == (2, True)


def test_a_video_is_scored_like_a_shown_episode(made: Made):
    episode = pc.open(made.space.root)["tiny"][0]
    rows = pc.reward(video_path(made.source, 0), episode.task or "", like=episode, fps=5.0)
    assert len(rows) == LENGTHS[0]
    assert rows[0]["progress"] < 0.2
    assert rows[-1]["progress"] > 0.8
    by_clock = pc.reward(video_path(made.source, 0), "x", baseline="clock")
    assert [by_clock[0]["progress"], by_clock[-1]["progress"]] == [0.0, 1.0]
    with pytest.raises(pc.UserError, match="give either --like, --model or --baseline"):
        pc.reward(video_path(made.source, 0), "x", like=episode, baseline="clock")
