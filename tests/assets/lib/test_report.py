"""What a build tells Dagster: one event per stage run, once, also after a crash."""

from collections import Counter
from itertools import product
from pathlib import Path

import dagster as dg
import pytest

from annotate.config import SamplesConfig
from assets.lib.report import dagster_home, is_followed, mirror, report_build, telling
from cli.console import build_all
from core.errors import UserError
from core.paths import ROOT, Workspace
from pipeline.release import release_step
from tests.kits.lake_kit import opened
from tests.kits.made_corpus import Made, with_stages
from tests.kits.tiny_lerobot import LENGTHS, rows_path, video_path
from warehouse.lake import open_lake

pytestmark = pytest.mark.slow

STAGES = ("episodes", "frames", "demonstrations", "segments", "progress", "samples", "shards")
CHUNKS = ["tiny:00000", "tiny:00001", "tiny:00002"]
ALL = {("episodes", "tiny")} | {(stage, chunk) for stage, chunk in product(STAGES[1:], CHUNKS)}


def events(instance: dg.DagsterInstance) -> list[tuple[str, dg.AssetMaterialization]]:
    """(asset, materialisation) of everything that the event log has, oldest first."""
    records_found = []
    for stage in STAGES:
        records = instance.fetch_materializations(dg.AssetKey(stage), limit=1000).records
        records_found += [(r.storage_id, stage, r.asset_materialization) for r in records]
    return [(stage, event) for _, stage, event in sorted(records_found, key=lambda f: f[0])]


def counted(space: Workspace) -> Counter[tuple[str, str | None]]:
    with telling(space) as (_, instance):
        return Counter((stage, event.partition) for stage, event in events(instance))


@pytest.fixture(scope="session")
def reported(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A copy of the built workspace whose build was reported; not for changing."""
    own_copy = made.copy(tmp_path_factory.mktemp("reported"))
    with telling(own_copy.space):
        report_build(open_lake(own_copy.space), ["tiny"], {})
    return own_copy


def test_what_is_reported_later_says_the_same(reported: Made, own: Made) -> None:
    mirror(own.space)
    with telling(reported.space) as (_, at_once), telling(own.space) as (_, later):
        reports = []
        for i in (at_once, later):
            reports.append(
                [(stage, e.partition, e.tags, _of_any_place(e)) for stage, e in events(i)]
            )
    assert reports[0] == reports[1]
    assert {stage for stage, *_, metadata in reports[1] if "rows_frames" in metadata} == {"frames"}


def _of_any_place(event: dg.AssetMaterialization) -> dict[str, object]:
    """What an event shows, without the address, which is each workspace's own."""
    return {name: value.value for name, value in event.metadata.items() if name != "dagster/uri"}


def test_a_build_is_reported_once_somebody_has_opened_dagster(own: Made) -> None:
    changed = with_stages(own.build, samples=SamplesConfig(progress_per_episode=3))
    repeated_steps = {(stage, chunk) for stage, chunk in product(("samples", "shards"), CHUNKS)}
    assert build_all(own.space, [changed], 1) == 0
    assert not is_followed(own.space)
    assert not (own.space.root / "dagster").exists()
    mirror(own.space)
    assert is_followed(own.space)
    assert counted(own.space) == Counter(ALL)
    assert build_all(own.space, [own.build], 1) == 0
    assert counted(own.space) == Counter(ALL) + Counter(repeated_steps)


def test_a_chunk_that_its_dataset_lost_is_no_partition_any_more(
    reported: Made, tmp_path: Path
) -> None:
    own_copy = reported.copy(tmp_path)
    last = len(LENGTHS) - 1
    rows_path(own_copy.source, last).unlink()
    video_path(own_copy.source, last).unlink()
    listing = own_copy.source / "meta" / "episodes.jsonl"
    listing.write_text("".join(listing.read_text().splitlines(keepends=True)[:-1]))
    assert own_copy.rebuild() == [("episodes", None)]
    for table in ("frames", "progress", "samples", "shards", "stage_runs"):
        assert own_copy.rows(f"SELECT count(*) FROM {table} WHERE chunk = 2") == [(0,)], table
    report_build(open_lake(own_copy.space), ["tiny"], {})
    with telling(own_copy.space) as (_, instance):
        assert instance.get_dynamic_partitions("chunks") == CHUNKS[:2]


def test_a_workspace_of_another_machine_is_told_once(own: Made) -> None:
    with opened(own.space) as lake:
        release_step(lake, "first", allow=("unknown",))
    for _ in range(2):
        mirror(own.space)
    assert counted(own.space) == Counter(ALL)
    with telling(own.space) as (_, instance):
        assert instance.get_runs() == []


def test_a_stage_that_this_version_does_not_have_is_passed_over(own: Made) -> None:
    """A lake of another version may know it."""
    with opened(own.space) as lake:
        lake.con.execute(
            "INSERT INTO stage_runs SELECT * REPLACE ('former' AS stage) FROM stage_runs LIMIT 1"
        )
    mirror(own.space)
    assert counted(own.space) == Counter(ALL)


def test_the_projects_own_workspace_uses_the_projects_home() -> None:
    assert dagster_home(Workspace(ROOT / "workspace")) == ROOT


def test_a_path_where_dagster_cannot_keep_its_storage(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"below a '\?'"):
        dagster_home(Workspace(tmp_path / "a?b"))
    assert list(tmp_path.iterdir()) == []
