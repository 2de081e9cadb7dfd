"""Server time of every page of the explorer, and memory, on a corpus of 400,000 episodes and 60 M frames.

    python benchmarks/explorer.py [--scale 1.0] [--folder /tmp/explorer-bench] [--requests 20] [--keep]

The corpus is made in SQL with the lake's own tables and partitions: no pictures, made-up labels. Pages are asked for
over HTTP from a server process of its own, whose memory is read from /proc. Each request is of another episode,
filter or page, so nothing is answered from what was counted before unless the page does so for its users, too.
"""

import argparse
import json
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import httpx

ROOT = Path(__file__).parents[1]
sys.path[0] = str(ROOT)

from warehouse.lake import Lake
from warehouse.workspace import Workspace

DATASETS, EPISODES, CHUNK = 20, 20_000, 500  # EPISODES of each, times the scale
WANTED_MS, WANTED_MB = 300, 1000
RUN, MODEL_RUN = "0123456789abcdef", "fedcba9876543210"
ROBOTS = "['panda', 'sawyer', 'aloha', 'ur5', 'widowx']"
VERBS = "['Pick up', 'Push', 'Open', 'Close', 'Place', 'Turn', 'Wipe', 'Pour']"
THINGS = "['the cup', 'the drawer', 'a red block', 'the lid', 'the towel', 'a plate', 'the bottle', 'the door']"

E = "dataset, episode_index, chunk"
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
               sha256(h::VARCHAR) AS content_hash FROM e""",
    "splits": f"""
        SELECT {E}, CASE h // 7 % 10 WHEN 0 THEN 'val' WHEN 1 THEN 'test_id' ELSE 'train' END AS split,
               'g' || episode_index // 10 AS "group" FROM e""",
    "findings": f"""
        SELECT {E}, NULL AS camera, 'frames' AS stage, ['too_short', 'undecodable_video', 'no_rows'][1 + h % 3] AS
          reason,
               'made up' AS detail, NULL AS file, 'unusable' AS severity FROM e WHERE h % 97 = 0""",
    "active_runs": f"SELECT {E}, '{RUN}' AS label_run, 'named by the configuration' AS why FROM e WHERE h % 97 > 0",
    "episode_labels": f"""
        SELECT {E}, label_run, ['a', 'b', 'c'] AS plan, 'task' AS task, false AS task_inferred, h % 211 = 0 AS
               needs_review, (h % 100 / 100)::FLOAT AS confidence, [] AS notes
        FROM e, runs WHERE h % 97 > 0 AND (main OR h % 10 = 0)""",
    "label_quality": f"""
        SELECT {E}, label_run, h % 7 - 3.0 AS length_z, h % 10 / 10 AS order_rarity, h % 61 / 100 AS jump,
               CASE WHEN h % 5 > 0 THEN 1.0 ELSE h % 90 / 100 END AS end_progress, h % 89 = 0 AS contradicts
        FROM e, runs WHERE h % 97 > 0 AND (main OR h % 10 = 0)""",
    "label_disagreement": f"""
        SELECT {E}, '{MODEL_RUN}' AS label_run, '{RUN}' AS other_run, h % 100 / 200 AS mean_difference
        FROM e WHERE h % 10 = 0 AND h % 97 > 0""",
    "segments": f"""
        SELECT {E}, label_run, k AS segment_index, ({VERBS})[1 + (h + k * 3) % 8] || ' ' || ({THINGS})[1 + (h + k) %
          8] AS name,
               n * k // 6 AS start_frame, n * (k + 1) // 6 AS end_frame, true AS completed, 'step' AS kind, k AS step,
               6 AS num_planned, 0.7 AS confidence, NULL AS notes
        FROM e, runs, range(6) r(k) WHERE h % 97 > 0 AND (main OR h % 10 = 0)""",
    "keyframes": f"""
        SELECT {E}, camera, n * k // 8 AS frame_index, sha256(h || camera || k) AS sha256, 320 AS width_px,
               240 AS height_px, 'coarse' AS purpose, '' AS label_run
        FROM e, range(8) r(k), (VALUES ('front'), ('wrist')) c(camera)""",
    "samples": f"""
        SELECT substr(sha256(h || 's' || k), 1, 16) AS sample_id, 'procvqa_c' AS family, 'progress' AS variant, {E},
               'train' AS split, '{RUN}' AS label_run, 'front' AS camera, [n * k // 8] AS frames, 'How far?' AS
                 question,
               '<progress>50.00%</progress>' AS answer, 0.5 AS progress, 'ongoing' AS state, 100 AS num_tokens
        FROM e, range(8) r(k) WHERE h % 97 > 0""",
    "progress": f"""
        SELECT {E}, label_run, f AS frame_index, f * 6 // n AS segment_index, (f / n)::FLOAT AS progress,
               (f * 6 // n / 6)::FLOAT AS progress_procvlm
        FROM e, runs, range(n) r(f) WHERE h % 97 > 0 AND (main OR h % 10 = 0)""",
    "frames": f"""
        SELECT {E}, 'front' AS camera, f AS frame_index, f / 15 AS timestamp_s,
               (hash(h, f) % 1000 / 4000)::FLOAT AS visual_change, hash(h, f // 10) AS phash,
               (1 - abs(2 * f / n - 1))::FLOAT AS gripper, (hash(f, h) % 100 / 50)::FLOAT AS speed,
               (h % 50 / 100)::FLOAT AS luma_mean, false AS is_black FROM e, range(n) r(f)""",
    "vlm_calls": f"""
        SELECT sha256(dataset || h || k) AS call_key, 'b' || chunk AS build_id, dataset, episode_index,
               ['plan', 'segment', 'refine', 'verify', 'reason'][1 + k] AS stage, 'made-up' AS model, 8 AS num_images,
               3000 AS prompt_tokens, 200 AS completion_tokens, 1.5 AS latency_s, 0.002 AS cost_usd, 'ok' AS status,
               '{MODEL_RUN}' AS label_run FROM e, range(5) r(k)""",
    "states": f"""
        SELECT {E}, f AS frame_index, [f / n, h % 10 / 10, (f % 30) / 30, 0.5, 0, 1, 2]::FLOAT[] AS state
        FROM e, range(n) r(f)""",
}
ONCE_SQL = {
    "label_runs": """
        SELECT label_run, CASE WHEN main THEN 'motion' ELSE 'vlm' END AS annotator, 'made-up' AS model, '{}' AS params,
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
    "releases": "SELECT 'bench' AS name, 1 AS snapshot, 'x' AS config_hash, now() AS created_at",
    "release_shards": """
        SELECT 'bench' AS name, split, shard, dataset, chunk, episodes, samples, bytes, sha256 FROM shards""",
}


def make(space: Workspace, scale: float) -> None:
    """A lake with DATASETS datasets of EPISODES * scale episodes; each table's rows lie in its own partitions."""
    lake = Lake(space)
    con, episodes = lake.con, max(CHUNK, round(EPISODES * scale))
    con.execute("SET preserve_insertion_order = false")
    con.execute(f"CREATE TEMP TABLE runs AS FROM (VALUES ('{RUN}', true), ('{MODEL_RUN}', false)) v(label_run, main)")
    for k in range(DATASETS):
        name = f"corpus_{k:02d}"
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE e AS SELECT '{name}' AS dataset, i AS episode_index,"
            f" (i // {CHUNK})::INTEGER AS chunk, (hash('{name}', i) % 1000003)::BIGINT AS h, 50 + h % 201 AS n"
            f" FROM range({episodes}) r(i)"
        )
        con.execute("BEGIN")
        con.execute(
            f"INSERT INTO datasets BY NAME SELECT '{name}' AS dataset, 'Made up {k}' AS title, ({ROBOTS})[1 + {k}"
            " % 5] AS robot,"
            f" 'lerobot_v3.0' AS format, 15.0 AS fps, ['Apache-2.0', 'CC-BY-4.0', NULL][1 + {k} % 3] AS license,"
            f" '/nowhere' AS source_uri, {CHUNK} AS chunk_size, CASE WHEN {k} = 19 THEN 'ood' ELSE 'train' END AS role,"
            " ['front', 'wrist'] AS cameras, 'made up' AS notes"
        )
        for table, sql in TABLES_SQL.items():
            con.execute(f"INSERT INTO {table} BY NAME {sql}")
        con.execute(
            "INSERT INTO shards BY NAME SELECT dataset || '-' || chunk || '.tar' AS shard, 'train' AS split,"
            " dataset, chunk,"
            " count(*) AS episodes, 8 * count(*) AS samples, 1000000 AS bytes, 'x' AS sha256 FROM e GROUP BY ALL"
        )
        con.execute(
            "INSERT INTO stage_runs BY NAME SELECT stage, dataset, chunk, '' AS label_run, 'x' AS input_hash, '1'"
            " AS code_version,"
            " count(*) AS rows, 'x' AS output_hash, 1 AS snapshot, 0 AS cache_hits, 1.0 AS duration_s, now() AS"
            " finished_at"
            " FROM e, (VALUES ('frames'), ('segments'), ('progress'), ('samples'), ('shards')) s(stage) GROUP BY ALL"
        )
        con.execute("COMMIT")
        print(f"made {name}", file=sys.stderr, flush=True)
    predictions = {"predictions": round(40_000 * scale)}
    for table, sql in ONCE_SQL.items():
        con.execute(f"INSERT INTO {table} BY NAME {sql}", predictions if "$predictions" in sql else None)
    con.close()


def urls(episodes: int, seed: int = 0) -> dict[str, Callable[[], str]]:
    """A maker of addresses for each page, by name; each call another one."""
    chance = random.Random(seed)
    words = [
        "cup",
        "drawer",
        "red block",
        "lid",
        "towel",
        "plate",
        "bottle",
        "door",
        "pick",
        "push open",
        "wipe",
        "number 7",
    ]
    sorts = ["episode", "longest", "shortest", "steps", "confidence", "jump", "end"]

    def where() -> str:
        return f"corpus_{chance.randrange(DATASETS):02d}/{chance.randrange(episodes)}"

    def filtered() -> dict:
        chosen = {
            "split": chance.choice(["train", "val", "test_id"]),
            "robot": chance.choice(["panda", "sawyer", "ur5"]),
            "success": chance.choice(["yes", "no"]),
            "quality": chance.choice(["no sign", "unsure", "progress jumps"]),
            "dataset": f"corpus_{chance.randrange(DATASETS):02d}",
        }
        return dict(chance.sample(sorted(chosen.items()), chance.randint(1, 3)))

    return {
        "corpus": lambda: "/",
        "episodes": lambda: "/episodes",
        "episodes, narrowed": lambda: "/episodes?" + urlencode(filtered() | {"sort": chance.choice(sorts)}),
        "episodes, words": lambda: "/episodes?" + urlencode({"q": chance.choice(words), **filtered()}),
        "episodes, far page": lambda: f"/episodes?sort={chance.choice(sorts)}&page={chance.randrange(1, 8000)}",
        "episode": lambda: f"/episode/{where()}",
        "episode, as data": lambda: f"/api/episode/{where()}",
        "compare": lambda: f"/compare/{where()}",
        "why": lambda: f"/why/{where()}",
        "review": lambda: (
            "/review?"
            + urlencode(
                {
                    "kind": chance.choice(["all", "disagreement", "unsure", "jumps", "quarantined"]),
                    "page": chance.randrange(1, 60),
                }
            )
        ),
        "sql": lambda: "/sql?" + urlencode({"q": f"FROM episode_facts LIMIT {chance.randrange(1, 400)}"}),
        "releases": lambda: "/releases",
        "release": lambda: "/releases/bench",
        "leaderboard": lambda: "/leaderboard?metric=" + chance.choice(["mae", "voc", "tau_b"]),
        "episodes of a score": lambda: f"/leaderboard/run{chance.randrange(10)}?page={chance.randrange(1, 20)}",
    }


@contextmanager
def serving(space: Workspace) -> Iterator[tuple[str, int, float]]:
    """Address and process of an explorer, and the seconds until it answered its first page."""
    started = time.monotonic()
    command = [sys.executable, str(ROOT / "proccorpus.py"), "explore", "--no-open", "--port", "0"]
    server = subprocess.Popen([*command, "--workspace", str(space.root)], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = server.stdout.readline().split(" is at ")[1].split()[0]
        httpx.get(f"{url}/", timeout=600).raise_for_status()
        yield url, server.pid, time.monotonic() - started
    finally:
        server.terminate()
        server.wait(30)


def memory_mb(process: int) -> tuple[float, float]:
    """Resident memory now, and the most so far."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return int(lines["VmRSS"].split()[0]) / 1024, int(lines["VmHWM"].split()[0]) / 1024


def cpu_ms(process: int) -> float:
    """What a process has computed so far: says more than the clock where others share the machine."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return 1000 * (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measured(url: str, process: int, episodes: int, requests: int) -> list[dict]:
    """Milliseconds of each page: median, 95th percentile, largest, mean computing. An answer that is no page fails."""
    rows = []
    with httpx.Client(base_url=url, timeout=120) as client:
        for name, make_url in urls(episodes).items():
            client.get(make_url()).raise_for_status()
            took, computed = [], cpu_ms(process)
            for _ in range(requests):
                path = make_url()
                begun = time.perf_counter()
                client.get(path).raise_for_status()
                took.append(1000 * (time.perf_counter() - begun))
            p95 = sorted(took)[math.ceil(0.95 * len(took)) - 1]
            computed = (cpu_ms(process) - computed) / requests
            rows.append({"page": name, "p95_ms": p95})
            print(f"{name:22} {statistics.median(took):7.0f} {p95:7.0f} {max(took):7.0f} {computed:7.0f}", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/explorer-bench"), help="made, and deleted at the end")
    parser.add_argument("--requests", type=int, default=20, help="of each page")
    parser.add_argument("--keep", action="store_true", help="leave the corpus for another run, which takes it as it is")
    given = parser.parse_args()
    space, episodes = Workspace(given.folder), max(CHUNK, round(EPISODES * given.scale))
    if not space.exists():
        make(space, given.scale)
    try:
        found = Lake(space, read_only=True).rows(
            "SELECT (SELECT count(*) FROM episode_facts), (SELECT count(*) FROM frames), (SELECT sum(num_rows)"
            " FROM episode_facts)"
        )[0]
        assert found[0] == DATASETS * episodes, found
        assert found[1] == found[2], found
        print(f"{found[0]:,} episodes, {found[1]:,} frame rows")
        shutil.rmtree(space.root / "explorer", ignore_errors=True)
        print("page (milliseconds)     median     p95     max     CPU")
        with serving(space) as (url, process, first_s):
            rows = measured(url, process, episodes, given.requests)
            now, most = memory_mb(process)
        with serving(space) as (_, _, again_s):
            pass
        print(
            f"first page after {first_s:.1f} s, of the next start after {again_s:.1f} s; memory {now:.0f} MB, at"
            f" most {most:.0f}"
        )
        slow = [r["page"] for r in rows if r["p95_ms"] > WANTED_MS]
        print(json.dumps({"slow": slow, "memory_is_less": most < WANTED_MB}))
    finally:
        if not given.keep:
            shutil.rmtree(given.folder)


if __name__ == "__main__":
    main()
