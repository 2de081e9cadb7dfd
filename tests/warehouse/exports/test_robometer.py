"""Robometer's rows: opened by Hugging Face's `datasets`."""

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import load_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from annotate.conventions.reward_data import GradedAnnotation, grade
from annotate.imported_label import ImportedError
from annotate.progress import stated_progress
from core.domain.stated import is_stated
from ingest.media.video import decode
from pipeline.imports import import_annotations
from tests.kits.made_corpus import Made
from tests.kits.tiny_lerobot import LENGTHS
from warehouse.exports import EXPORT_KINDS
from warehouse.exports.options import Selection
from warehouse.lake import Lake

ROBOMETER = EXPORT_KINDS["robometer"]

ANY = Selection(allow=("unknown",))
# generate_hf_dataset.py @4dc7d0f7: BASE_FEATURES, with frames as a path
FEATURES = {
    "id": "string", "task": "string", "lang_vector": "float32", "data_source": "string", "frames": "string",
    "is_robot": "bool", "quality_label": "string", "partial_success": "float32",
}  # fmt: skip


def test_datasets_opens_it_and_the_grades_come_back(own: Made, tmp_path: Path):
    """Of episodes that finished, that failed half way and near the end, and of which nobody knows."""
    lake = Lake(own.space)
    for episode, success, end in (
        (0, True, 1.0),
        (1, False, 0.25),
        (2, False, 0.75),
        (3, None, 1.0),
        (4, None, 0.4),
    ):
        lake.con.execute(
            "UPDATE episode_facts SET success = ? WHERE episode_index = ?", [success, episode]
        )
        lake.con.execute(
            "UPDATE progress SET progress = progress * ? WHERE episode_index = ?", [end, episode]
        )
    out = tmp_path / "rbm"
    exported = ROBOMETER.export(lake, ANY, out)
    assert exported.episodes == len(LENGTHS)

    opened: Any = load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    rows = list(chain.from_iterable(opened.values()))
    features = next(iter(opened.values())).features
    assert {
        name: getattr(f, "dtype", None) or f.feature.dtype for name, f in features.items()
    } == FEATURES
    assert len(rows) == len({row["id"] for row in rows})
    ends = dict(
        lake.rows(
            "SELECT episode_index, arg_max(progress, frame_index) FROM active_progress GROUP BY 1"
        )
    )
    success_by_episode = dict(lake.rows("SELECT episode_index, success FROM episodes"))
    assert set(success_by_episode.values()) == {True, False, None}
    for row in rows:
        dataset, number, camera = row["id"].split("/")
        episode = int(number)
        quality, share = grade(success_by_episode[episode], ends[episode])
        assert (row["quality_label"], row["data_source"], row["is_robot"]) == (
            quality,
            dataset,
            True,
        )
        assert row["partial_success"] == pytest.approx(share)
        assert len(row["lang_vector"]) == 384
        assert np.linalg.norm(row["lang_vector"]) == pytest.approx(1, abs=1e-5)
        assert sum(1 for _ in decode(out / row["frames"])) == LENGTHS[episode], camera
    assert {row["quality_label"] for row in rows} == {"successful", "suboptimal", "failure"}

    imported = import_annotations(lake, out, "tiny", "robometer")
    assert (imported.episodes, imported.refused) == (len(LENGTHS), ())
    grades_read = dict(
        lake.rows(
            "SELECT episode_index, arg_max(progress, frame_index) FROM progress WHERE label_run = ? GROUP BY 1",
            [imported.label_run],
        )
    )
    for row in rows:
        assert grades_read[int(row["id"].split("/")[1])] == pytest.approx(
            row["partial_success"], abs=1e-6
        )


@settings(max_examples=60, deadline=None)
@given(
    success=st.sampled_from([True, False, None]),
    end=st.one_of(st.none(), st.floats(0, 1, width=32)),
)
def test_a_grade_comes_back_as_the_end_of_a_label(success: bool | None, end: float | None):
    quality, share = grade(success, end)
    annotation = GradedAnnotation(0, None, quality, share)
    if quality is None:
        with pytest.raises(ImportedError, match="neither"):
            annotation.label(10, 5.0, success)
        return
    label = annotation.label(10, 5.0, success)
    assert label.segments[0].completed == (quality == "successful")
    ordinary = np.linspace(0, 1 if label.segments[0].completed else 0.5, 10)
    if is_stated(label.segments, label.end):
        curve = stated_progress(label.segments, ordinary, label.end)
    else:
        curve = ordinary
    if share is not None:
        assert curve[-1] == pytest.approx(share, abs=1e-6)
        assert (
            grade(
                quality == "successful" or (None if quality is None else False), float(curve[-1])
            )[0]
            == quality
        )
