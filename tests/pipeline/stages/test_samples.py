"""The samples and shards stages on a real chunk: pictures of other episodes, edited ones, and such as are lost."""

import numpy as np

from annotate.config import SamplesConfig
from pipeline.config import DatasetBuild
from pipeline.stages import shards as shards_stage
from pipeline.stages import stage_named
from tests.kits.made_corpus import Made, stage_output, with_stages
from tests.kits.tiny_lerobot import video_path
from warehouse.lake import Lake, StageRun
from warehouse.shards.check import check_shard
from warehouse.shards.shard import Sample, read_samples

MANY = SamplesConfig(unanswerable_per_episode=8)


def sampled(made_corpus: Made, build: DatasetBuild, chunk: int = 0) -> Lake:
    """A lake with the samples of a chunk under the build's configuration."""
    lake = Lake(made_corpus.space)
    tables = stage_output(stage_named("samples"), lake, build, chunk).tables
    rows = tables["samples"].num_rows
    lake.publish(StageRun("samples", build.name, chunk, "", "in", "1", rows, "out", 0.0), tables)
    return lake


def sharded(
    lake: Lake, build: DatasetBuild, chunk: int = 0
) -> tuple[list[dict], list, dict, list[Sample]]:
    output = stage_output(stage_named("shards"), lake, build, chunk)
    rows = output.tables["shards"].to_pylist()
    findings = output.findings
    assert findings is not None
    paths = [lake.workspace.shard(r["split"], r["shard"], r["store"]) for r in rows]
    for r, path in zip(rows, paths, strict=True):
        assert check_shard(path, r["sha256"], r["bytes"]) == []
    return rows, findings, dict(output.numbers), list(read_samples(paths))


def test_an_editor_is_asked_once_per_picture(own, monkeypatch):
    instructions: list[str] = []

    def negative(rgb: np.ndarray, instruction: str, seed: int) -> np.ndarray:
        instructions.append(instruction)
        return 255 - rgb

    monkeypatch.setattr(shards_stage, "load_editor", {"negative": negative}.__getitem__)
    build = with_stages(own.build, samples=MANY.model_copy(update={"image_editor": "negative"}))
    lake = sampled(own, build)
    first = sharded(lake, build)
    edited = [s for s in first[3] if s.row["reason"] == "edited"]
    assert edited
    assert set(instructions) == {s.row["edit_instruction"] for s in edited}
    assert len(instructions) == len({s.row["pictures"][-1] for s in edited})
    count = len(instructions)
    second_shards = sharded(lake, build)
    assert len(instructions) == count, "the store has them"
    assert second_shards[0] == first[0]
    plain = {}
    for s in first[3]:
        plain |= zip(s.row["pictures"], s.pictures, strict=True)
    for s in edited:
        *earlier_pictures, last = [plain[name] for name in s.row["pictures"]]
        assert last not in earlier_pictures


def test_lost_pictures_cost_only_the_samples_that_show_them(own):
    build = with_stages(own.build, samples=MANY)
    lake = sampled(own, build, 1)
    lost_episode = 3
    data = video_path(own.source, lost_episode).read_bytes()
    video_path(own.source, lost_episode).write_bytes(data[: len(data) // 2])
    _, (finding,), numbers, samples = sharded(lake, build, 1)
    assert (finding.reason, finding.severity, finding.episode_index) == (
        "undecodable_video",
        "unusable",
        lost_episode,
    )
    sample_rows = lake.dicts("SELECT sample_id, pictures FROM samples WHERE chunk = 1")
    untouched = {
        r["sample_id"]
        for r in sample_rows
        if all(p["episode_index"] != lost_episode for p in r["pictures"])
    }
    found_ids = {s.row["sample_id"] for s in samples}
    assert untouched <= found_ids
    assert 0 < numbers["samples_left_out"] == len(sample_rows) - len(found_ids)
