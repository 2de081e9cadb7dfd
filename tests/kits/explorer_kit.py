"""A small workspace with everything that the explorer shows: two label runs, words, calls, scores, a release."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from annotate.model_client.responses import ResponseStore, StoredReply
from core.paths import Workspace
from core.tables import TABLES
from tests.kits.lake_kit import change
from tests.kits.made_corpus import Made
from warehouse.lake import Lake

NOW = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
OTHER = "feedfeedfeedfeed"  # the label run of a model, beside the build's own
HOSTILE = "<script>alert('task')</script><img src=x onerror=alert(1)>"
CALL = "ab" * 32  # the key of its call that is kept whole
LOST, OLD = (
    "cd" * 32,
    "ef" * 32,
)  # a call whose reply is gone, and one of a version that kept no words
FAILED, CLOCK = "eval0000failed00", "eval0000clock000"  # evaluations
TRAINED, TRAINED_SLOWER = "tiny-model", "tiny-model-slower"  # training runs
UNLABELLED, QUARANTINED = 3, 4  # episodes of `tiny`


def furnish(made_corpus: Made) -> Workspace:
    """Add to a built workspace, in its own lake, what no small build has."""
    space = made_corpus.space
    lake = Lake(space)
    first_run = lake.rows("SELECT label_run FROM label_runs")[0][0]
    lengths = dict(
        lake.rows("SELECT episode_index, num_frames FROM episodes WHERE dataset = 'tiny'")
    )
    picture = lake.rows(
        "SELECT sha256 FROM keyframes WHERE episode_index = 0 ORDER BY frame_index LIMIT 1"
    )[0][0]
    _label(lake, first_run, lengths)
    _calls(lake, space, picture)
    _scores(lake, lengths)
    _release(lake)
    _trainings(lake)
    lake.con.execute(
        "UPDATE datasets SET license = 'Apache-2.0', source_uri = ?", [str(made_corpus.source)]
    )
    lake.con.execute(
        "UPDATE episode_facts SET task = ?, tasks = [?] WHERE episode_index = 2", [HOSTILE, HOSTILE]
    )
    for table in ("segments", "progress", "episode_labels", "label_quality", "active_runs"):
        lake.con.execute(f"DELETE FROM {table} WHERE episode_index = {UNLABELLED}")
    lake.con.close()
    return space


def copy_furnished(furnished: Workspace, made_corpus: Made, folder: Path) -> Workspace:
    """A furnished workspace of a test's own, with its source beside it, and without what an explorer has kept."""
    source = shutil.copytree(made_corpus.source, folder / "source")
    ignored = shutil.ignore_patterns("explorer")
    space = Workspace(shutil.copytree(furnished.root, folder / "workspace", ignore=ignored))
    change(space, "UPDATE datasets SET source_uri = ?", str(source))
    return space


def _label(lake: Lake, first_run: str, lengths: dict[int, int]) -> None:
    """A second run on episodes 0 and 1: the first run's steps with a boundary moved, another curve, words."""
    run = {
        "label_run": OTHER,
        "annotator": "vlm",
        "model": "tiny-vlm",
        "prompt_version": "p1",
        "created_at": NOW,
    }
    run |= {"params": '{"seed": 0}', "code_version": "vlm-1"}
    lake.upsert("another run", label_runs=TABLES["label_runs"].rows([run]))
    for e in (0, 1):
        n = lengths[e]
        cuts = [0, n // 3, n - 3, n]
        names = ("Reach for the cube", "Put it on the plate", "Done")
        segments = []
        for k, (name, a, b) in enumerate(zip(names, cuts[:-1], cuts[1:], strict=True)):
            if name == "Done":
                kind = {"kind": "done", "step": None}
            else:
                kind = {"kind": "step", "step": k}
            part = {
                "segment_index": k,
                "name": name,
                "start_frame": a,
                "end_frame": b,
                "completed": True,
            } | kind
            segments.append(part | {"num_planned": 2, "confidence": 0.9})
        key = {"dataset": "tiny", "episode_index": e, "chunk": 0, "label_run": OTHER}
        frames = [
            {
                "frame_index": f,
                "segment_index": 0,
                "progress": float(v),
                "progress_procvlm": float(v) / 2,
            }
            for f, v in enumerate(np.linspace(0, 1, n))
        ]
        words = [
            {"frame_index": f, "text": f"At {f} the hand moves on.", "finished": False}
            for f in (0, n // 2)
        ]
        quality = {"length_z": 0.0, "jump": 0.7, "end_progress": 1.0, "contradicts": False}
        label = {
            "plan": list(names[:2]),
            "task": "put the cube on the plate",
            "confidence": 0.9,
            "needs_review": False,
        }
        lake.upsert(
            "another label",
            segments=TABLES["segments"].rows([key | s for s in segments]),
            progress=TABLES["progress"].rows([key | f for f in frames]),
            reasoning=TABLES["reasoning"].rows([key | w for w in words]),
            label_quality=TABLES["label_quality"].rows([key | quality]),
            episode_labels=TABLES["episode_labels"].rows([key | label]),
        )
    finding_row = {
        "dataset": "tiny",
        "episode_index": QUARANTINED,
        "chunk": 2,
        "stage": "frames",
        "severity": "unusable",
    }
    finding_row |= {"reason": "undecodable_video", "detail": "the video ends early"}
    lake.upsert("a finding", findings=TABLES["findings"].rows([finding_row]))


def _calls(lake: Lake, space: Workspace, picture: str) -> None:
    call = {
        "build_id": "b1",
        "dataset": "tiny",
        "episode_index": 0,
        "model": "tiny-vlm",
        "prompt_version": "p1",
    }
    call |= {
        "num_images": 1,
        "prompt_tokens": 321,
        "completion_tokens": 45,
        "latency_s": 0.5,
        "cost_usd": 0.0125,
    }
    call |= {"status": "ok", "label_run": OTHER}
    stages = ((CALL, "plan"), (LOST, "segment"), (OLD, "verify"))
    lake.upsert(
        "calls",
        vlm_calls=TABLES["vlm_calls"].rows([call | {"call_key": k, "stage": s} for k, s in stages]),
    )
    store = ResponseStore(space.responses)
    reply = StoredReply(
        text='{"steps": ["Reach for the cube"], "note": "</pre><script>alert(2)</script>"}',
        value={"steps": ["Reach for the cube"]},
        prompt_tokens=321,
        completion_tokens=45,
        latency_s=0.5,
        model="tiny-vlm",
        model_root=None,
        stage="plan",
        prompt_version="p1",
        images=(picture,),
        params={"temperature": 0.0},
        created_at=NOW.isoformat(),
        system="You watch a robot.",
        content=("Which steps does the task need?", {"sha256": picture}, {"sha256": "0" * 64}),
    )
    store.put(CALL, reply)
    store.put(OLD, StoredReply(**{**vars(reply), "system": "", "content": ()}))


def _scores(lake: Lake, lengths: dict[int, int]) -> None:
    runs = []
    predictions = []
    scores = []
    for run, model, error in ((FAILED, "tiny-model", 0.3), (CLOCK, "clock", 0.1)):
        about = {
            "eval_run": run,
            "model": model,
            "benchmark": "held-out (truth)",
            "release": "first",
        }
        runs.append(about | {"config": "{}", "code_version": "eval-1", "created_at": NOW})
        for e in (0, 1):
            for f in range(0, lengths[e], 4):
                target = f / lengths[e]
                prediction_row = {
                    "prediction": min(1.0, target + error * (e + 1) / 2),
                    "target": target,
                }
                predictions.append(
                    {"eval_run": run, "dataset": "tiny", "episode_index": e, "frame_index": f}
                    | prediction_row
                )
        for s in ("all", "split=val"):
            for m, v in (("mae", error), ("voc", 1 - error)):
                score_row = {
                    "eval_run": run,
                    "slice": s,
                    "metric": m,
                    "value": v,
                    "low": v - 0.05,
                    "high": v + 0.05,
                }
                scores.append(score_row | {"n": 2, "coverage": 1})
    # A matrix, of which one cell is empty
    cells = (
        ("Open it", "Open it", 0.875),
        ("Open it", "<b>Shut</b> it", 0.125),
        ("Wait", "Open it", 0),
    )
    for video, fault_name, value in cells:
        cell = {
            "eval_run": FAILED,
            "slice": f"video: {video}",
            "metric": f"under: {fault_name}",
            "value": value,
            "n": 1,
        }
        scores.append(cell | {"low": value, "high": value, "coverage": 1})
    lake.upsert(
        "scores",
        eval_runs=TABLES["eval_runs"].rows(runs),
        eval_predictions=TABLES["eval_predictions"].rows(predictions),
        eval_scores=TABLES["eval_scores"].rows(scores),
    )


def _trainings(lake: Lake) -> None:
    """Two training runs of 40 steps, the first that of the evaluated model."""
    runs = []
    points = []
    for run, rate in ((TRAINED, 1e-3), (TRAINED_SLOWER, 3e-4)):
        config = {"recipe": {"name": "tiny", "optimizer": {"rate": rate}, "steps": 40}, "seed": 0}
        about = {
            "recipe": "tiny",
            "release": "first",
            "config_hash": "c" * 64,
            "config": json.dumps(config),
        }
        end = {
            "steps": 40,
            "final_loss": 1 / (40 * rate),
            "code_version": "train-1",
            "created_at": NOW,
        }
        runs.append({"training_run": run} | about | end)
        for step in range(40):
            point = {
                "training_run": run,
                "step": step,
                "loss": 1 / ((step + 1) * rate),
                "progress": 0.5 / (step + 1),
            }
            learnt = {
                "learning_rate": rate,
                "samples": 8 * (step + 1),
                "extra": json.dumps({"reward": step / 40}),
            }
            points.append(point | learnt)
    lake.upsert(
        "trainings",
        training_runs=TABLES["training_runs"].rows(runs),
        training_points=TABLES["training_points"].rows(points),
    )


def _release(lake: Lake) -> None:
    shards = lake.dicts(
        "SELECT shard, split, dataset, chunk, episodes, samples, bytes, sha256 FROM shards"
    )
    rows = TABLES["release_shards"].rows([{"name": "first", **s} for s in shards])
    lake.freeze({"name": "first", "config_hash": "c" * 64, "created_at": NOW}, rows)


def write_queries(space: Workspace, rows: list[dict]) -> Path:
    path = space.root / "explorer" / "queries.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(rows))
    return path
