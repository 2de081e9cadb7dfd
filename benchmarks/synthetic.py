"""A corpus of any size with the lake's own tables and partitions, made in SQL: no pictures, made-up labels.

At scale 1: 400,000 episodes in 20 datasets of 40 chunks, 60 M frame rows, in some minutes and 2.3 GB. It is sound: it
follows the schema, nothing leaks between splits, `plan()` calls every stage of every chunk current, and a release can
be made of it (its shards are files of the right size with nothing in them).
"""

import os
import sys
from datetime import UTC, datetime

import pyarrow as pa

from annotate.config import MOTION_VERSION, MotionConfig
from core.domain.label_run import LabelRun, resolved
from core.paths import Workspace
from core.tables import TABLES
from ingest.registry import DatasetConfig
from pipeline.config import DatasetBuild
from pipeline.plan import STAMPS, former_hash
from pipeline.stages import stage_specs
from warehouse.lake import WHOLE_DATASET, Lake, content_key

DATASETS, EPISODES, CHUNK = 20, 20_000, 500  # EPISODES of each, times the scale
SHARD_BYTES = 1_000_000
FINGERPRINT = "made"  # of each dataset's source
NOWHERE = "/nowhere"
VERBS = "['Pick up', 'Push', 'Open', 'Close', 'Place', 'Turn', 'Wipe', 'Pour']"
THINGS = "['the cup', 'the drawer', 'a red block', 'the lid', 'the towel', 'a plate', 'the bottle', 'the door']"

RUN = LabelRun(
    "motion", MOTION_VERSION, resolved(MotionConfig().model_dump(mode="json"))
).id  # as builds name it
MODEL_RUN = "fedcba9876543210"
E = "dataset, episode_index, chunk"
SHARD = "format('{}-{:05d}-{}-{}.tar', dataset, chunk, split, substr(sha256(dataset || chunk || split), 1, 12))"
# The start of a chunk's videos looks alike, and a quarter of every session's (of a tenth of them half, which makes
# the guard against near-copies look closer); the rest is each episode's own
PHASH = """
        CASE WHEN f < 20 THEN hash(dataset, chunk, f // 10)
             WHEN f % 40 < CASE WHEN episode_index // 20 % 10 = 0 THEN 20 ELSE 10 END
             THEN hash(dataset, episode_index // 20, f // 10)
             ELSE hash(dataset, episode_index, f // 10) END"""
FALLS = "h % 50 = 7"  # in the middle, once
TABLES_SQL = {
    "episode_facts": f"""
        SELECT {E}, 'ep/' || episode_index AS source_id, ({VERBS})[1 + h % 8] || ' ' || ({THINGS})[1 + h // 8 % 8]
               || CASE WHEN h % 3 = 0 THEN ' number ' || h % 400 ELSE '' END AS task, [task] AS tasks, n AS num_rows,
               15.0 AS fps, ['front', 'wrist'] AS cameras, 'data/' || chunk || '.parquet' AS data_uri, '' AS data_key,
               0 AS row_start, [{{camera: 'front', uri: 'videos/' || episode_index || '.mp4', start_frame: 0}}] AS
                 videos,
               h % 5 > 0 AS success, 'g' || episode_index // 10 AS "group", h::VARCHAR AS source_stamp FROM e""",
    "episode_content": f"""
        SELECT {E}, n AS num_frames, 15.0 AS fps, 0.0 AS max_drift_s, ['front', 'wrist'] AS usable_cameras,
               sha256(dataset || episode_index) AS content_hash FROM e""",
    "splits": f"""SELECT {E}, split, 'g' || episode_index // 10 AS "group" FROM e""",
    "findings": f"""
        SELECT {E}, NULL AS camera, 'frames' AS stage, ['too_short', 'undecodable_video', 'no_rows'][1 + h % 3] AS
          reason,
               'made up' AS detail, NULL AS file, 'unusable' AS severity FROM e WHERE h % 97 = 0""",
    "active_runs": f"SELECT {E}, '{RUN}' AS label_run, 'named by the configuration' AS why FROM e WHERE h % 97 > 0",
    "episode_labels": f"""
        SELECT {E}, label_run, ['a', 'b', 'c'] AS plan, true AS named, 'task' AS task,
               false AS task_inferred, h % 211 = 0 AS needs_review, (h % 100 / 100)::FLOAT AS confidence, [] AS notes
        FROM e, runs WHERE h % 97 > 0 AND (main OR h % 10 = 0)""",
    "label_quality": f"""
        SELECT {E}, label_run, h % 7 - 3.0 AS length_z, h % 10 / 10 AS order_rarity, h % 61 / 100 AS jump,
               ({FALLS})::BIGINT AS falls, CASE WHEN {FALLS} THEN 0.1 - 1 / n ELSE 0 END AS worst_fall,
               CASE WHEN h % 5 > 0 THEN 1.0 ELSE h % 90 / 100 END AS end_progress, h % 89 = 0 AS contradicts
        FROM e, runs WHERE h % 97 > 0 AND (main OR h % 10 = 0)""",
    "demonstration_measures": f"""
        SELECT {E}, n / 15 AS duration_s, n * (h % 20) / 300 AS rest_s, h % 4 AS pauses, h % 3 AS reversals,
               1 + h % 50 / 50 AS jerk, h % 5 AS gripper_moves, [h % 13, h % 17, h % 19, 0.5, 0, 1, 2] AS end_state,
               [5, 6, 7, 0, 0, 0, 0] AS state_spread, 'front' AS camera, hash(h) AS end_phash FROM e""",
    "label_disagreement": f"""
        SELECT {E}, '{MODEL_RUN}' AS label_run, '{RUN}' AS other_run, h % 100 / 200 AS mean_difference
        FROM e WHERE h % 10 = 0 AND h % 97 > 0""",
    "segments": f"""
        SELECT {E}, label_run, k AS segment_index, ({VERBS})[1 + (h + k * 3) % 8] || ' ' || ({THINGS})[1 + (h + k) %
          8] AS name,
               n * k // 6 AS start_frame, n * (k + 1) // 6 AS end_frame, true AS completed, 'step' AS kind, k AS step,
               6 AS num_planned, 0.7 AS confidence, NULL AS notes, true AS named
        FROM e, runs, range(6) r(k) WHERE h % 97 > 0 AND (main OR h % 10 = 0)""",
    "keyframes": f"""
        SELECT {E}, camera, n * k // 8 AS frame_index, sha256(h || camera || k) AS sha256, 320 AS width_px,
               240 AS height_px, 'coarse' AS purpose, '' AS label_run
        FROM e, range(8) r(k), (VALUES ('front'), ('wrist')) c(camera)""",
    "samples": f"""
        SELECT substr(sha256(dataset || episode_index || 's' || k), 1, 16) AS sample_id, 'procvqa_c' AS family,
               'progress' AS variant, {E},
               split, '{RUN}' AS label_run, 'front' AS camera, [n * k // 8] AS frames,
               [{{episode_index: episode_index, camera: 'front', frame_index: n * k // 8, edit: NULL}}] AS pictures,
               'How far?' AS question,
               '<progress>50.00%</progress>' AS answer, 0.5 AS progress, 'ongoing' AS state, 100 AS num_tokens
        FROM e, range(8) r(k) WHERE h % 97 > 0""",
    "progress": f"""
        SELECT {E}, label_run, f AS frame_index, f * 6 // n AS segment_index,
               (f / n - CASE WHEN {FALLS} AND f >= n // 2 THEN 0.1 ELSE 0 END)::FLOAT AS progress,
               (f * 6 // n / 6)::FLOAT AS progress_procvlm
        FROM e, runs, range(n) r(f) WHERE h % 97 > 0 AND (main OR h % 10 = 0)""",
    "frames": f"""
        SELECT {E}, 'front' AS camera, f AS frame_index, f / 15 AS timestamp_s,
               (hash(h, f) % 1000 / 4000)::FLOAT AS visual_change, {PHASH} AS phash,
               (1 - abs(2 * f / n - 1))::FLOAT AS gripper, (hash(f, h) % 100 / 50)::FLOAT AS speed,
               (h % 50 / 100)::FLOAT AS luma_mean, false AS is_black FROM e, range(n) r(f)""",
    "sample_location": f"""
        SELECT substr(sha256(dataset || episode_index || 's' || k), 1, 16) AS sample_id, {SHARD} AS shard, dataset,
               chunk,
               512 * (episode_index % {CHUNK}) AS "offset" FROM e, range(8) r(k) WHERE h % 97 > 0""",
    "shards": f"""
        SELECT {SHARD} AS shard, split, dataset, chunk, count(*) AS episodes, 8 * count(*) AS samples,
               {SHARD_BYTES} AS bytes, sha256({SHARD}) AS sha256 FROM e WHERE h % 97 > 0 GROUP BY ALL""",
    "vlm_calls": f"""
        SELECT sha256(dataset || episode_index || k) AS call_key, 'b' || chunk AS build_id, dataset, episode_index,
               ['plan', 'segment', 'refine', 'verify', 'reason'][1 + k] AS stage, 'made-up' AS model, 8 AS num_images,
               3000 AS prompt_tokens, 200 AS completion_tokens, 1.5 AS latency_s, 0.002 AS cost_usd, 'ok' AS status,
               '{MODEL_RUN}' AS label_run FROM e, range(5) r(k)""",
    "states": f"""
        SELECT {E}, f AS frame_index, [f / n, h % 10 / 10, (f % 30) / 30, 0.5, 0, 1, 2]::FLOAT[] AS state
        FROM e, range(n) r(f)""",
}
ONCE_SQL = {
    "label_runs": """
        SELECT label_run, CASE WHEN main THEN 'motion' ELSE 'vlm' END AS annotator,
               CASE WHEN NOT main THEN 'made-up' END AS model, '{}' AS params,
               'bench-1' AS code_version, now() AS created_at FROM runs""",
    "eval_runs": """
        SELECT 'run' || k AS eval_run, ['clock', 'best constant', 'visual distance', 'model a', 'model b'][1 + k % 5]
          AS model,
               CASE WHEN k < 5 THEN 'held-out' ELSE 'held-out (truth)' END AS benchmark, 'bench' AS release, '{}' AS
                 config,
               'eval-1' AS code_version, now() AS created_at FROM range(10) r(k)""",
    "eval_predictions": """
        SELECT 'run' || k AS eval_run, 'corpus_00' AS dataset, i // 10 AS episode_index, i % 10 * 5 AS frame_index,
               (hash(i, k) % 100 / 100)::FLOAT AS prediction, (i % 10 / 10)::FLOAT AS target
        FROM range(10) r(k), range($predictions) p(i)""",
    "eval_scores": """
        SELECT 'run' || k AS eval_run, slice, metric, 0.5 + k / 40 AS value, 0.45 AS low, 0.8 AS high, 4000 AS n,
               1.0 AS coverage FROM range(10) r(k), (VALUES ('all'), ('split=val'), ('robot=panda')) s(slice),
               (VALUES ('mae'), ('voc'), ('tau_b')) m(metric)""",
}


def builds() -> list[DatasetBuild]:
    """What each of the datasets was built with."""
    return [
        DatasetBuild(
            dataset=DatasetConfig(
                name=f"corpus_{k:02d}",
                title=f"Made up {k}",
                robot=("panda", "sawyer", "aloha", "ur5", "widowx")[k % 5],
                source=NOWHERE,
                fps=15.0,
                license=("Apache-2.0", "CC-BY-4.0", None)[k % 3],
                role="ood" if k == DATASETS - 1 else "train",
                chunk_size=CHUNK,
            )
        )
        for k in range(DATASETS)
    ]


def episodes_of_each(scale: float) -> int:
    return max(CHUNK, round(EPISODES * scale))


def make(space: Workspace, scale: float) -> None:
    """A lake with DATASETS datasets of EPISODES * scale episodes; each table's rows lie in its own partitions."""
    lake = Lake(space)
    con = lake.con
    episodes = episodes_of_each(scale)
    con.execute("SET preserve_insertion_order = false")
    con.execute(
        f"CREATE TEMP TABLE runs AS FROM (VALUES ('{RUN}', true), ('{MODEL_RUN}', false)) v(label_run, main)"
    )
    for build in builds():
        ood = build.dataset.role == "ood"
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE e AS SELECT '{build.name}' AS dataset, i AS episode_index,"
            f" (i // {CHUNK})::INTEGER AS chunk, (hash('{build.name}', i) % 1000003)::BIGINT AS h, 50 + h % 201 AS n,"
            f" CASE WHEN {ood} THEN 'test_ood' ELSE"
            f" CASE hash('{build.name}', i // 10) % 10 WHEN 0 THEN 'val' WHEN 1 THEN 'test_id' ELSE 'train' END END"
            f" AS split FROM range({episodes}) r(i)"
        )
        con.execute("BEGIN")
        for table, rows in _of_dataset(build, episodes // CHUNK, lake.snapshot() + 1).items():
            con.register("made", rows)
            con.execute(f"INSERT INTO {table} BY NAME FROM made")
            con.unregister("made")
        for table, sql in TABLES_SQL.items():
            con.execute(f"INSERT INTO {table} BY NAME {sql}")
        con.execute("COMMIT")
        print(f"made {build.name}", file=sys.stderr, flush=True)
    predictions = {"predictions": round(40_000 * scale)}
    for table, sql in ONCE_SQL.items():
        con.execute(
            f"INSERT INTO {table} BY NAME {sql}", predictions if "$predictions" in sql else None
        )
    for split, shard in lake.rows("SELECT split, shard FROM shards"):
        path = space.shard(split, shard)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.truncate(path, SHARD_BYTES)  # takes no space
    columns = TABLES["release_shards"].schema.names
    frozen = lake.arrow(f"SELECT 'bench' AS name, {', '.join(columns[1:])} FROM shards")
    lake.freeze(
        {"name": "bench", "config_hash": content_key("bench"), "created_at": datetime.now(UTC)},
        frozen.cast(TABLES["release_shards"].schema),
    )
    con.close()


def _of_dataset(build: DatasetBuild, chunks: int, snapshot: int) -> dict[str, pa.Table]:
    """The rows that say what a dataset is, and that all its stages were run on all its chunks."""
    d = build.dataset
    timestamp = datetime.now(UTC)
    first, *later_specs = (
        spec for spec in stage_specs(build) if not {*spec.stage.reads} & STAMPS.keys()
    )
    facts = {"input_hash": former_hash(first, [FINGERPRINT]), "output_hash": content_key(d.name)}
    runs = [
        {
            "stage": first.name,
            "chunk": WHOLE_DATASET,
            "label_run": "",
            "code_version": first.code_version,
        }
        | facts
    ]
    for chunk in range(chunks):
        outputs = {first.name: content_key(d.name, str(chunk))}
        run_values = facts | {"output_hash": outputs[first.name]}
        runs.append(
            {
                "stage": first.name,
                "chunk": chunk,
                "label_run": "",
                "code_version": first.code_version,
            }
            | run_values
        )
        for spec in later_specs:
            hashes = [outputs[name] for name in spec.stage.upstream if name in outputs]
            outputs[spec.name] = content_key(d.name, str(chunk), spec.name)
            run_values = {
                "input_hash": former_hash(spec, hashes),
                "output_hash": outputs[spec.name],
            }
            stage_values = {
                "stage": spec.name,
                "chunk": chunk,
                "label_run": spec.label_run,
                "code_version": spec.code_version,
            }
            runs.append(stage_values | run_values)
    common = {
        "dataset": d.name,
        "rows": CHUNK,
        "snapshot": snapshot,
        "cache_hits": 0,
        "duration_s": 1.0,
    }
    described = {
        "title": d.title,
        "robot": d.robot,
        "fps": d.fps,
        "license": d.license,
        "role": d.role,
    }
    source_values = {
        "format": "lerobot_v3.0",
        "source_uri": d.source,
        "chunk_size": CHUNK,
        "cameras": ["front", "wrist"],
    }
    config = {
        "config_hash": content_key(build.identity()),
        "config": build.model_dump_json(),
        "created_at": timestamp,
    }
    return {
        "datasets": TABLES["datasets"].rows(
            [{"dataset": d.name, "notes": "made up"} | described | source_values]
        ),
        "build_configs": TABLES["build_configs"].rows([{"dataset": d.name} | config]),
        "stage_runs": TABLES["stage_runs"].rows(
            [common | r | {"finished_at": timestamp} for r in runs]
        ),
    }
