"""The samples and shards stages on a real chunk: pictures of other episodes, edited ones, and such as are lost."""

import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from annotate.samples.config import SamplesConfig
from pipeline.config import DatasetBuild
from pipeline.plan import STALE
from pipeline.stage import Output, StageContext, Step
from pipeline.stages import samples as samples_stage
from pipeline.stages import shards as shards_stage
from pipeline.stages import stage_specs
from tests.kits.made_corpus import Made
from tests.kits.tiny_lerobot import video_path
from warehouse.lake import Lake, StageRun
from warehouse.shards import Sample, check_shard, read_samples
from warehouse.shards.config import ShardsConfig

MANY = SamplesConfig(unanswerable_per_episode=8)


def with_stages(build: DatasetBuild, **changes: object) -> DatasetBuild:
    return build.model_copy(update={"stages": build.stages.model_copy(update=changes)})


def run_on_chunk(stage: ModuleType, lake: Lake, build: DatasetBuild, chunk: int) -> Output:
    step = Step(stage.STAGE.spec(build), build.name, chunk, STALE, "in")
    return stage.run(StageContext(lake, build, step, build.source(lake.workspace.sources)))


def sampled(made: Made, build: DatasetBuild, chunk: int = 0) -> Lake:
    """A lake with the samples of a chunk under the build's configuration."""
    lake = Lake(made.space)
    tables = run_on_chunk(samples_stage, lake, build, chunk).tables
    rows = tables["samples"].num_rows
    lake.publish(StageRun("samples", build.name, chunk, "", "in", "1", rows, "out", 0.0), tables)
    return lake


def sharded(lake: Lake, build: DatasetBuild, chunk: int = 0) -> tuple[list[dict], list, dict, list[Sample]]:
    output = run_on_chunk(shards_stage, lake, build, chunk)
    rows, findings = output.tables["shards"].to_pylist(), output.findings
    assert findings is not None
    paths = [lake.workspace.shard(r["split"], r["shard"], r["store"]) for r in rows]
    for r, path in zip(rows, paths, strict=True):
        assert check_shard(path, r["sha256"], r["bytes"]) == []
    return rows, findings, dict(output.numbers), list(read_samples(paths))


def test_pictures_of_another_episode_lie_in_the_entry_that_shows_them(own: Made):
    build = with_stages(own.build, samples=MANY)
    _, findings, numbers, samples = sharded(
        sampled(own, build, 1), build, 1
    )  # episodes 2 and 3: two tasks of one split
    assert findings == []
    assert numbers["samples_left_out"] == 0
    by_frame: dict[tuple, set[bytes]] = {}
    foreign = 0
    for s in samples:
        for name, jpeg in zip(s.row["pictures"], s.pictures, strict=True):
            episode = int(name[1:7]) if name.startswith("e00") else s.row["episode_index"]
            foreign += episode != s.row["episode_index"]
            by_frame.setdefault((episode, name.split(".", 1)[1] if name.startswith("e00") else name), set()).add(jpeg)
    assert foreign
    assert all(len(found) == 1 for found in by_frame.values())  # the same frame, the same bytes, wherever it lies


def test_a_tar_is_closed_at_its_size(own: Made):
    whole, *_, samples = sharded(sampled(own, own.build), own.build)
    one = with_stages(own.build, shards=ShardsConfig(target_bytes=1))
    parts, _, _, same = sharded(Lake(own.space), one)
    assert len(whole) <= 2 < len(parts) + len(whole)
    assert [p["episodes"] for p in parts] == [1, 1]
    assert sorted(s.row["sample_id"] for s in samples) == sorted(s.row["sample_id"] for s in same)


def test_chunks_in_another_order_give_the_same_bytes(own: Made):
    before = own.rows("SELECT shard, sha256, samples FROM shards ORDER BY 1")
    shutil.rmtree(own.space.root / "shards")
    found = [row for chunk in (2, 1, 0) for row in sharded(sampled(own, own.build, chunk), own.build, chunk)[0]]
    assert sorted((r["shard"], r["sha256"], r["samples"]) for r in found) == before
    kept = sorted(p.name for p in (own.space.root / "shards").rglob("*") if p.is_file())
    assert [n for n in kept if n.endswith(".tar")] == [b[0] for b in before]
    assert len(kept) == 2 * len(before)  # and the indexes: nothing half-done


def test_shards_may_lie_elsewhere(own: Made, tmp_path: Path):
    store = str(tmp_path / "bucket")
    here, *_ = sharded(sampled(own, own.build), own.build)
    there, *_ = sharded(Lake(own.space), with_stages(own.build, shards=ShardsConfig(store=store)))
    assert [r | {"store": store} for r in here] == there
    assert {p.name for p in Path(store).rglob("*.tar")} == {r["shard"] for r in here}
    one, other = own.build, with_stages(own.build, shards=ShardsConfig(store=store))
    assert stage_specs(one) == stage_specs(other)  # where shards lie does not change what they are
    moved = other.model_copy(update={"dataset": other.dataset.model_copy(update={"source": "s3://b/x"})})
    assert one.identity() == moved.identity() != one.json_text()
    assert one.identity() != with_stages(one, shards=ShardsConfig(jpeg_quality=60)).identity()


def test_an_editor_is_asked_once_per_picture(own: Made, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []

    def negative(rgb: np.ndarray, instruction: str, seed: int) -> np.ndarray:
        asked.append(instruction)
        return 255 - rgb

    monkeypatch.setattr(shards_stage, "load_editor", {"negative": negative}.__getitem__)
    build = with_stages(own.build, samples=MANY.model_copy(update={"image_editor": "negative"}))
    lake = sampled(own, build)
    first = sharded(lake, build)
    edited = [s for s in first[3] if s.row["reason"] == "edited"]
    assert edited
    assert set(asked) == {s.row["edit_instruction"] for s in edited}
    assert len(asked) == len({s.row["pictures"][-1] for s in edited})
    count = len(asked)
    again = sharded(lake, build)
    assert len(asked) == count, "the store has them"
    assert again[0] == first[0]
    plain = {name: jpeg for s in first[3] for name, jpeg in zip(s.row["pictures"], s.pictures, strict=True)}
    assert all(plain[s.row["pictures"][-1]] not in [plain[n] for n in s.row["pictures"][:-1]] for s in edited)


def test_lost_pictures_cost_only_the_samples_that_show_them(own: Made):
    build = with_stages(own.build, samples=MANY)
    lake = sampled(own, build, 1)
    lost = 3
    data = video_path(own.source, lost).read_bytes()
    video_path(own.source, lost).write_bytes(data[: len(data) // 2])
    _, (finding,), numbers, samples = sharded(lake, build, 1)
    assert (finding.reason, finding.severity, finding.episode_index) == ("pictures_lost", "unusable", lost)
    wanted = lake.dicts("SELECT sample_id, pictures FROM samples WHERE chunk = 1")
    untouched = {r["sample_id"] for r in wanted if all(p["episode_index"] != lost for p in r["pictures"])}
    found = {s.row["sample_id"] for s in samples}
    assert untouched <= found
    assert 0 < numbers["samples_left_out"] == len(wanted) - len(found)
