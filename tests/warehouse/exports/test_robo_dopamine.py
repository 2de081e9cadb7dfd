"""Robo-Dopamine's forms: raw runs come back through the reader, pairs follow its rule of scores."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.media.video import decode
from ingest.registry import DatasetConfig
from ingest.source import format_of, list_episodes
from ingest.sources.files import Source
from tests.kits.made_corpus import Made
from tests.kits.tiny_lerobot import LENGTHS
from warehouse.exports import EXPORT_KINDS
from warehouse.exports.options import RoboDopamineOptions, Selection
from warehouse.exports.reward_data import score
from warehouse.lake import Lake

ROBO_DOPAMINE = EXPORT_KINDS["robo-dopamine"]

ANY = Selection(allow=("unknown",))


def published_score(first: int, before: int, after: int, last: int) -> float:
    """1_generate_data.py @bd69c78f: of indices, as its progress is the place among sampled frames."""
    if before == after:
        return 0.0
    whole = last - before if before < after else before - first
    return 100.0 * (after - before) / whole


@settings(max_examples=80, deadline=None)
@given(st.integers(3, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n), st.integers(1, n))))
def test_scores_are_those_of_the_published_rule(drawn: tuple[int, int, int]):
    last, before, after = drawn
    shares = [(k - 1) / (last - 1) for k in (before, after)]
    assert score(*shares) == pytest.approx(published_score(1, before, after, last))
    assert -100 <= score(*shares) <= 100


def test_runs_come_back_and_pairs_show_what_they_say(own: Made, tmp_path: Path):
    lake = Lake(own.space)
    lake.con.execute("UPDATE episode_facts SET success = episode_index <> 4")
    out = tmp_path / "out"
    done = ROBO_DOPAMINE.export(lake, ANY, out, RoboDopamineOptions(per_run=12))
    assert done.episodes == len(LENGTHS)
    assert ROBO_DOPAMINE.export(lake, ANY, out, RoboDopamineOptions(per_run=12)).again

    source = Source(DatasetConfig(name="back", source=str(out / "raw_data/tiny")))
    assert format_of(source).name == "robo_dopamine"
    steps = lake.rows(
        "SELECT episode_index, name, start_frame, end_frame FROM active_segments WHERE kind = 'step' ORDER BY ALL"
    )
    facts = lake.rows("SELECT episode_index, task FROM episodes ORDER BY 1")
    back = []
    told = []
    for record in list_episodes(source).records:
        episode = int(record.source_id[-6:])
        told.append((episode, record.task))
        back += [(episode, s.name, s.start_frame, s.end_frame) for s in record.steps]
    assert sorted(told) == facts
    assert sorted(back) == steps

    splits = dict(lake.rows("SELECT episode_index, split FROM splits"))
    progress: dict[int, list[float]] = {}
    for episode, value in lake.rows(
        "SELECT episode_index, progress FROM active_progress ORDER BY episode_index, frame_index"
    ):
        progress.setdefault(episode, []).append(value)
    items = [item for path in (out / "train_data/train_jsons").iterdir() for item in json.loads(path.read_text())]
    assert len(items) == done.samples == len({item["id"] for item in items})
    signs = set()
    for item in items:
        named = re.fullmatch(r"tiny_(\d+)-bf_(\d+)-af_(\d+)", item["id"])
        assert named
        episode, before, after = map(int, named.groups())
        question, answer = (turn["value"] for turn in item["conversations"])
        assert question.count("<image>") == len(item["image"])
        assert question.count(item["task"]) == 1
        percent = float(re.fullmatch(r"<score>([+-]\d+\.\d)%</score>", answer)[1])  # type: ignore[index]
        assert percent == pytest.approx(score(progress[episode][before], progress[episode][after]), abs=0.051)
        signs.add(np.sign(percent))
        shown = [cv2.imread(str(out / path)) for path in item["image"]]
        assert all(picture is not None for picture in shown)
        # The first picture is where the run begins, the second where a run of its task is done
        end = re.search(r"tiny_(\d+)/cam_high/frame_(\d+)\.jpg", item["image"][1])
        assert end
        assert (int(end[1]) != 4, int(end[2])) == (True, LENGTHS[int(end[1])] - 1)
        assert splits[int(end[1])] == splits[episode], "no pair lies across two splits"
    assert signs >= {1.0, -1.0}
    frames = [f.rgb() for f in decode(next((out / "raw_data").rglob("episode_000000/cam_high.mp4")))]
    stored = cv2.imread(str(out / "train_data/tiny_000000/cam_high/frame_000000.jpg"))
    assert stored is not None
    assert np.abs(stored[..., ::-1].astype(int) - frames[0].astype(int)).mean() < 3
