"""What Dagster sees of a lake: one event per stage run, once, by whatever program it was built."""

from collections import Counter
from itertools import product
from pathlib import Path

import dagster as dg
import pytest

from annotate.config import SamplesConfig
from assets.defs.corpus.jobs import lake_contents
from assets.defs.resources import CorpusResource
from assets.lib.home import dagster_home
from cli.console import build_all
from core.errors import UserError
from core.paths import ROOT, Workspace
from pipeline.release import release_step
from tests.kits.lake_kit import opened
from tests.kits.made_corpus import Made, with_stages
from tests.kits.tiny_lerobot import LENGTHS, rows_path, video_path

pytestmark = pytest.mark.slow

STAGES = ("episodes", "frames", "demonstrations", "segments", "progress", "samples", "shards")
CHUNKS = ["tiny:00000", "tiny:00001", "tiny:00002"]
ALL = {("episodes", "tiny")} | {(stage, chunk) for stage, chunk in product(STAGES[1:], CHUNKS)}


class Watch:
    """The sensor on a workspace, with what its event log has."""

    def __init__(self, space: Workspace, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self.resources = {"corpus": CorpusResource(root=str(space.root))}
        self.cursor: str | None = None

    def look(self) -> str | None:
        """One look; why there was nothing to see."""
        context = dg.build_sensor_context(
            self.instance, cursor=self.cursor, resources=self.resources
        )
        seen = lake_contents.evaluate_tick(context)
        self.cursor = seen.cursor
        return seen.skip_message

    def events(self, *assets: str) -> list[dg.AssetMaterialization]:
        """Materialisations that the event log has, oldest first."""
        records: list[dg.EventLogRecord] = []
        for asset in assets:
            records += self.instance.fetch_materializations(dg.AssetKey(asset), 1000).records
        records.sort(key=lambda record: record.storage_id)
        return [event for record in records if (event := record.asset_materialization)]

    def counted(self) -> Counter[tuple[str, str | None]]:
        return Counter((e.asset_key.to_user_string(), e.partition) for e in self.events(*STAGES))


@pytest.fixture
def watch(own: Made, instance: dg.DagsterInstance) -> Watch:
    return Watch(own.space, instance)


def test_the_lake_is_seen_once(own: Made, watch: Watch) -> None:
    """Stages, what is upstream first, and what was made of them; also a stage that this version does not have."""
    with opened(own.space) as lake:
        lake.con.execute(
            "INSERT INTO stage_runs SELECT * REPLACE ('former' AS stage) FROM stage_runs LIMIT 1"
        )
        release_step(lake, "first", allow=("unknown",))
    assert watch.look() == f"{len(ALL) + 1} stage runs are new here"
    assert watch.look() == "the lake is as it was"
    watch.cursor = None
    assert watch.look() == "1 stage runs are new here", "that of another version"
    assert watch.counted() == Counter(ALL)
    events = watch.events(*STAGES, "release")
    assert [
        e.asset_key.to_user_string() for e in events if e.partition in ("tiny", CHUNKS[0], None)
    ] == [*STAGES, "release"]
    assert {e.asset_key.to_user_string() for e in events if "rows_frames" in e.metadata} == {
        "frames"
    }
    tags = events[-2].tags or {}
    assert tags["dagster/input_event_pointer/samples"].isdecimal()
    assert watch.instance.get_runs() == []


def test_what_another_program_builds_is_seen(own: Made, watch: Watch) -> None:
    changed = with_stages(own.build, samples=SamplesConfig(progress_per_episode=3))
    repeated_steps = {(stage, chunk) for stage, chunk in product(("samples", "shards"), CHUNKS)}
    watch.look()
    assert build_all(own.space, [changed], 1) == 0
    assert not (own.space.root / "dagster").exists()
    watch.look()
    assert watch.counted() == Counter(ALL) + Counter(repeated_steps)


def test_a_workspace_without_a_lake(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    assert Watch(Workspace(tmp_path / "new"), instance).look() == "nothing was built yet"
    assert list(tmp_path.iterdir()) == []


def test_a_chunk_that_its_dataset_lost_is_no_partition_any_more(own: Made, watch: Watch) -> None:
    watch.look()
    assert watch.instance.get_dynamic_partitions("chunks") == CHUNKS
    last = len(LENGTHS) - 1
    rows_path(own.source, last).unlink()
    video_path(own.source, last).unlink()
    listing = own.source / "meta" / "episodes.jsonl"
    listing.write_text("".join(listing.read_text().splitlines(keepends=True)[:-1]))
    assert own.rebuild() == [("episodes", None)]
    for table in ("frames", "progress", "samples", "shards", "stage_runs"):
        assert own.rows(f"SELECT count(*) FROM {table} WHERE chunk = 2") == [(0,)], table
    watch.look()
    assert watch.instance.get_dynamic_partitions("chunks") == CHUNKS[:2]


def test_the_projects_own_workspace_uses_the_projects_home() -> None:
    assert dagster_home(Workspace(ROOT / "workspace")) == ROOT


def test_a_path_where_dagster_cannot_keep_its_storage(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"below a '\?'"):
        dagster_home(Workspace(tmp_path / "a?b"))
    assert list(tmp_path.iterdir()) == []
