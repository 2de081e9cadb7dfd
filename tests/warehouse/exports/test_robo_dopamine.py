"""Robo-Dopamine's forms: raw runs come back through the reader, pairs follow its rule of scores."""

import json
import re
from itertools import chain
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
from warehouse.exports.options import Selection
from warehouse.exports.reward_data import score
from warehouse.lake import Lake

ROBO_DOPAMINE = EXPORT_KINDS["robo-dopamine"]

ANY = Selection(allow=("unknown",))


def published_score(first: int, earlier_step: int, later_step: int, last: int) -> float:
    """1_generate_data.py @bd69c78f: of indices, as its progress is the place among sampled frames."""
    if earlier_step == later_step:
        return 0.0
    whole = last - earlier_step if earlier_step < later_step else earlier_step - first
    return 100.0 * (later_step - earlier_step) / whole


@settings(max_examples=80, deadline=None)
@given(
    st.integers(3, 60).flatmap(
        lambda n: st.tuples(st.just(n), st.integers(1, n), st.integers(1, n))
    )
)
def test_scores_are_those_of_the_published_rule(drawn: tuple[int, int, int]):
    last, earlier_step, later_step = drawn
    shares = [(k - 1) / (last - 1) for k in (earlier_step, later_step)]
    assert score(*shares) == pytest.approx(published_score(1, earlier_step, later_step, last))
    assert -100 <= score(*shares) <= 100


def test_runs_come_back_and_pairs_show_what_they_say(own: Made, tmp_path: Path):
    lake = Lake(own.space)
    lake.con.execute("UPDATE episode_facts SET success = episode_index <> 4")
    out = tmp_path / "out"
    exported = ROBO_DOPAMINE.export(lake, ANY, out, ROBO_DOPAMINE.options(per_run=12))
    assert exported.episodes == len(LENGTHS)

    source = Source(DatasetConfig(name="back", source=str(out / "raw_data/tiny")))
    assert format_of(source).name == "robo_dopamine"
    steps = lake.rows(
        "SELECT episode_index, name, start_frame, end_frame FROM active_segments WHERE kind = 'step' ORDER BY ALL"
    )
    facts = lake.rows("SELECT episode_index, task FROM episodes ORDER BY 1")
    read_steps = []
    read_tasks = []
    for record in list_episodes(source).records:
        episode = int(record.source_id[-6:])
        read_tasks.append((episode, record.task))
        read_steps += [(episode, s.name, s.start_frame, s.end_frame) for s in record.steps]
    assert sorted(read_tasks) == facts
    assert sorted(read_steps) == steps

    splits = dict(lake.rows("SELECT episode_index, split FROM splits"))
    progress: dict[int, list[float]] = {}
    for episode, value in lake.rows(
        "SELECT episode_index, progress FROM active_progress ORDER BY episode_index, frame_index"
    ):
        progress.setdefault(episode, []).append(value)
    items = list(
        chain.from_iterable(
            json.loads(path.read_text()) for path in (out / "train_data/train_jsons").iterdir()
        )
    )
    assert len(items) == exported.samples == len({item["id"] for item in items})
    signs = set()
    for item in items:
        id_match = re.fullmatch(r"tiny_(\d+)-bf_(\d+)-af_(\d+)", item["id"])
        assert id_match
        episode, earlier_frame, later_frame = map(int, id_match.groups())
        question, answer = (turn["value"] for turn in item["conversations"])
        assert question.count("<image>") == len(item["image"])
        assert question.count(item["task"]) == 1
        percent = float(re.fullmatch(r"<score>([+-]\d+\.\d)%</score>", answer)[1])  # type: ignore[index]
        assert percent == pytest.approx(
            score(progress[episode][earlier_frame], progress[episode][later_frame]), abs=0.051
        )
        signs.add(np.sign(percent))
        pictures_read = [cv2.imread(str(out / path)) for path in item["image"]]
        assert all(picture is not None for picture in pictures_read)
        # The first picture is where the run begins, the second where a run of its task is done
        end = re.search(r"tiny_(\d+)/cam_high/frame_(\d+)\.jpg", item["image"][1])
        assert end
        assert (int(end[1]) != 4, int(end[2])) == (True, LENGTHS[int(end[1])] - 1)
        assert splits[int(end[1])] == splits[episode], "no pair lies across two splits"
    assert signs >= {1.0, -1.0}
    frames = [
        f.rgb() for f in decode(next((out / "raw_data").rglob("episode_000000/cam_high.mp4")))
    ]
    stored = cv2.imread(str(out / "train_data/tiny_000000/cam_high/frame_000000.jpg"))
    assert stored is not None
    assert np.abs(stored[..., ::-1].astype(int) - frames[0].astype(int)).mean() < 3
