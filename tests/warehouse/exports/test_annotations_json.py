"""The visualizer's file by itself: written beside a dataset, changed by a person, read as a label run."""

import json
import shutil
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest

from annotate.conventions.sidecars import read_visualizer
from annotate.imported_label import ImportedError
from ingest.registry import DatasetConfig
from ingest.source import list_episodes
from ingest.sources.files import Source
from pipeline.imports import import_annotations
from tests.kits.made_corpus import Made
from tests.kits.tiny_lerobot import LENGTHS, NAMED
from warehouse.exports import EXPORT_KINDS
from warehouse.exports.options import Selection
from warehouse.lake import Lake

ANNOTATIONS_JSON = EXPORT_KINDS["annotations-json"]

ANY = Selection(allow=("unknown",))
FIELDS = {"role", "content", "style", "timestamp", "tool_calls"}


def test_what_is_written_is_read_beside_its_dataset_and_by_itself(
    made: Made, corpus: Lake, tmp_path: Path
):
    out = tmp_path / "lerobot_annotations.json"
    exported = ANNOTATIONS_JSON.export(Lake(made.space, read_only=True), ANY, out)
    assert (exported.episodes, exported.frames) == (len(NAMED), sum(LENGTHS[e] for e in NAMED)), (
        "those with sure steps"
    )
    content = json.loads(out.read_text())
    assert content["version"] == 2
    assert {
        frozenset(atom)
        for atom in chain.from_iterable(map(itemgetter("atoms"), content["episodes"].values()))
    } == {frozenset(FIELDS)}

    steps = corpus.rows(
        "SELECT episode_index, name, start_frame, end_frame FROM active_segments WHERE kind = 'step' ORDER BY ALL"
    )
    steps = [step for step in steps if step[0] in NAMED]
    # Beside its dataset, by the reader of sources
    source = tmp_path / "beside"
    shutil.copytree(made.build.dataset.source, source)
    shutil.copy(out, source / "meta" / out.name)
    records = list_episodes(Source(DatasetConfig(name="tiny", source=str(source)))).records
    assert {r.episode_index for r in records if r.steps_from == "visualizer"} == set(NAMED)
    drawn = []
    for record in records:
        for step in record.steps:
            drawn.append((record.episode_index, step.name, step.start_frame, step.end_frame))
    assert set(steps) <= set(drawn)

    # By itself, as a label run
    imported = import_annotations(corpus, out, "tiny", "annotations-json")
    assert (imported.episodes, imported.refused) == (len(NAMED), ())
    spans = corpus.rows(
        "SELECT episode_index, name, start_frame, end_frame FROM segments WHERE label_run = ?",
        [imported.label_run],
    )
    assert set(steps) <= set(spans)


def test_version_1_and_files_that_are_none(tmp_path: Path):
    path = tmp_path / "a.json"
    path.write_text(
        json.dumps(
            {"episodes": {"3": {"subtasks": [{"label": "reach", "start": 0.5, "end": 1.0}]}}}
        )
    )
    [annotation] = read_visualizer(path)
    label = annotation.label(20, 10.0, None)
    assert [(s.name, s.start_frame, s.end_frame) for s in label.segments] == [
        ("Between steps", 0, 5), ("reach", 5, 10), ("Done", 10, 20)]  # fmt: skip
    cases: list[tuple[Any, str]] = [
        ([], "no object `episodes`"),
        ({"episodes": {"a": {}}}, "no object `episodes`"),
        ({"episodes": {"0": {"atoms": []}}}, "has no steps"),
        (
            {"episodes": {"0": {"atoms": [{"style": "subtask", "content": "x"}]}}},
            "episode 0 has atoms",
        ),
        ({"episodes": {"0": {"subtasks": [{"label": "x"}]}}}, "episode 0 has atoms or subtasks"),
    ]
    for content, reason in cases:
        path.write_text(json.dumps(content))
        with pytest.raises(ImportedError, match=reason):
            read_visualizer(path)
    with pytest.raises(ImportedError, match="cannot be read"):
        read_visualizer(tmp_path / "gone.json")
