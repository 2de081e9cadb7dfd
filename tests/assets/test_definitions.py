"""The code location: it loads anywhere, and each asset says what an owner or a reader has to know."""

import json
import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from assets.defs.corpus.partitions import chunk_key, chunks, datasets, parse_chunk_key
from assets.lib.lineage import BY_NAME, COMPUTED, column_lineage
from core.paths import ROOT
from core.tables import TABLES
from pipeline.stage import Stage
from pipeline.stages import STAGES as CORPUS
from tests.kits.staleness import definitions

STAGE_OF_NAME = {stage.name: stage for stage in CORPUS}
STAGES = tuple(STAGE_OF_NAME)
WITHOUT_NETWORK = """
import json, socket
def refuse(*args, **kwargs):
    raise OSError("the network was asked for")
socket.socket.connect = socket.getaddrinfo = refuse
from assets.definitions import defs
print(json.dumps([spec.key.to_user_string() for spec in defs().resolve_all_asset_specs()]))
"""


def bare_environment(home: Path) -> dict[str, str]:
    """PATH and a home: nothing of ours, of Dagster's or of a cloud's. PYTHONPATH says where the project is, if set."""
    return {k: v for k, v in os.environ.items() if k in ("PATH", "PYTHONPATH")} | {"HOME": str(home)}


@pytest.fixture(scope="module")
def specs() -> dict[str, dg.AssetSpec]:
    return {s.key.to_user_string(): s for s in definitions().resolve_all_asset_specs()}


def test_definitions_load_without_settings_and_network(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_NETWORK],
        cwd=tmp_path,
        env=bare_environment(tmp_path),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert set(json.loads(done.stdout.splitlines()[-1])) >= set(STAGES)
    assert list(tmp_path.iterdir()) == [], "loading writes nothing"


@pytest.mark.parametrize("what", ["defs", "toml"])
def test_dg_check(what: str, tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    env = bare_environment(tmp_path) | {"DAGSTER_HOME": str(tmp_path)}
    program = Path(sys.executable).parent / "dg"
    done = subprocess.run(
        [program, "check", what], cwd=ROOT, env=env, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("stage", STAGES)
def test_an_asset_says_what_it_is(specs: dict[str, dg.AssetSpec], stage: str) -> None:
    spec = specs[stage]
    assert spec.group_name == "corpus"
    assert list(spec.owners) == ["team:corpus"]
    assert spec.kinds >= ({"webdataset"} if stage == "shards" else {"ducklake", "parquet"})
    assert len(spec.description or "") > 20
    assert spec.partitions_def == (datasets if stage == "episodes" else chunks)
    assert {d.asset_key.to_user_string() for d in spec.deps} == set(STAGE_OF_NAME[stage].upstream)


@pytest.mark.parametrize("stage", STAGES)
def test_the_column_schema_is_the_lakes(specs: dict[str, dg.AssetSpec], stage: str) -> None:
    table = TABLES[STAGE_OF_NAME[stage].tables[0]]
    columns = specs[stage].metadata["dagster/column_schema"].columns
    assert [(c.name, c.type) for c in columns] == [(c.name, str(c.type)) for c in table.columns]
    assert {c.name for c in columns if c.description} == {c.name for c in table.columns if c.comment}


def test_every_asset_leads_to_its_code(specs: dict[str, dg.AssetSpec]) -> None:
    for name, spec in specs.items():
        (reference,) = spec.metadata["dagster/code_references"].code_references
        assert isinstance(reference, dg.LocalFileCodeReference)
        line = Path(reference.file_path).read_text().splitlines()[(reference.line_number or 1) - 1]
        assert line.startswith(("def ", '"""')), (name, reference, line)
        assert reference.file_path.endswith(reference.label or "?")


@pytest.mark.parametrize("stage", CORPUS, ids=STAGES)
def test_columns_come_from_columns_that_are_upstream(stage: Stage) -> None:
    lineage = column_lineage(stage)
    assert lineage.deps_by_column.keys() <= {*TABLES[stage.tables[0]].schema.names}
    assert lineage.deps_by_column.keys() >= COMPUTED.get(stage.name, {}).keys()
    assert bool(lineage.deps_by_column) == bool(stage.upstream)
    for deps in lineage.deps_by_column.values():
        for dep in deps:
            asset = dep.asset_key.to_user_string()
            assert asset in stage.upstream
            assert dep.column_name in TABLES[BY_NAME[asset].tables[0]].schema.names


def test_what_a_week_makes_is_late_after_two(specs: dict[str, dg.AssetSpec]) -> None:
    late = {name for name, spec in specs.items() if spec.freshness_policy}
    assert late == {"release", "evaluation", "leaderboard"}


def test_every_asset_names_its_owner_inputs_and_cost(specs: dict[str, dg.AssetSpec]) -> None:
    assert len(specs) == len(STAGES) + 6
    for name, spec in specs.items():
        assert len(spec.description or "") > 20, name
        assert spec.owners, name
        assert spec.kinds, name
        assert spec.tags["cost"] in ("cpu", "gpu", "vlm"), name
        assert spec.metadata["dagster/column_schema"].columns, name
        assert set(spec.metadata["tables"].split(", ")) <= set(TABLES), name


def test_every_stage_has_its_checks_and_they_block_or_warn(specs: dict[str, dg.AssetSpec]) -> None:
    graph = definitions().resolve_asset_graph()
    found = {(k.asset_key.to_user_string(), k.name): graph.get_check_spec(k) for k in graph.asset_check_keys}
    blocking = {k for k, spec in found.items() if spec.blocking}
    assert blocking == {
        *((stage, "follows_schema") for stage in STAGES),
        ("frames", "decodable_coverage"),
        ("progress", "progress_sanity"),
        ("release", "no_split_leak"),
        ("release", "corpus_is_sound"),
    }
    assert set(found) - blocking == {
        ("segments", "cost_within_budget"),
        ("reasoning", "cost_within_budget"),
        ("progress", "label_coverage"),
        ("progress", "label_agreement"),
        ("progress", "label_drift"),
    }
    assert all(len(spec.description or "") > 20 for spec in found.values())


def test_jobs_schedules_and_sensors_say_what_they_are_for() -> None:
    found = definitions().resolve_all_job_defs()
    named = [j for j in found if not j.name.startswith("__")]
    assert {j.name for j in named} == {"corpus", "build", "close", "freeze", "score", "export"}
    repository = definitions().get_repository_def()
    ours = [*named, *repository.schedule_defs]
    ours += [s for s in repository.sensor_defs if s.name != "default_automation_condition_sensor"]
    assert {s.name for s in ours[len(named) :]} == {
        "nightly", "weekly", "source_revisions", "new_corrections", "new_release",
    }  # fmt: skip
    assert all(len(x.description or "") > 20 for x in ours)


def test_steps_share_one_process_and_the_corpus_resource(specs: dict[str, dg.AssetSpec]) -> None:
    found = definitions()
    assert found.executor is dg.in_process_executor
    assert "corpus" in (found.resources or {})
    graph = found.resolve_asset_graph()
    assert set(STAGES) <= {k.to_user_string() for k in graph.get_all_asset_keys()}


# Partition keys


@pytest.mark.parametrize(
    ("dataset", "chunk", "key"),
    [("sim_short", 0, "sim_short:00000"), ("a-b_9", 799, "a-b_9:00799"), ("x", 123456, "x:123456")],
)
def test_a_chunk_key_leads_there_and_back(dataset: str, chunk: int, key: str) -> None:
    assert chunk_key(dataset, chunk) == key
    assert parse_chunk_key(key) == (dataset, chunk)


def test_chunk_keys_sort_by_chunk() -> None:
    keys = [chunk_key("tiny", chunk) for chunk in (0, 9, 10, 99, 100, 99999)]
    assert sorted(keys) == keys


@pytest.mark.parametrize("key", ["", "tiny", "tiny:", "tiny:x", "tiny:-1", "tiny:0001x", "tiny 00001", ":00001"])
def test_a_bad_chunk_key_is_refused_by_name(key: str) -> None:
    with pytest.raises(ValueError, match="chunk key") as refused:
        parse_chunk_key(key)
    assert repr(key) in str(refused.value)


# Conditions


def test_what_follows_is_kept_current_and_asked_for_once() -> None:
    found = definitions()
    with dg.instance_for_test() as instance:
        instance.add_dynamic_partitions("chunks", ["a:00000", "a:00001"])
        result = dg.evaluate_automation_conditions(defs=found, instance=instance)

        def requested_after(asset: str, partition: str | None = None) -> set[str]:
            nonlocal result
            instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=partition))
            result = dg.evaluate_automation_conditions(defs=found, instance=instance, cursor=result.cursor)
            names = ("annotator_comparison", "leaderboard")
            assert result.total_requested == sum(result.get_num_requested(dg.AssetKey(n)) for n in names)
            return {n for n in names if result.get_num_requested(dg.AssetKey(n))}

        assert result.total_requested == 0
        assert requested_after("progress", "a:00000") == set(), "the first fill is not complete"
        assert requested_after("progress", "a:00001") == {"annotator_comparison"}
        assert requested_after("annotator_comparison") == set()
        assert requested_after("evaluation") == {"leaderboard"}
        assert requested_after("leaderboard") == set()
        assert requested_after("progress", "a:00001") == {"annotator_comparison"}
