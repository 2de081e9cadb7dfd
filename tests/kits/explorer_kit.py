"""A small workspace with all that the explorer shows: two label runs, words, calls, scores."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

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
LOST = "cd" * 32  # a call whose reply is gone
OLD = "ef" * 32  # one of a version that kept no words
FAILED = "eval0000failed00"  # an evaluation
CLOCK = "eval0000clock000"
UNLABELLED = 3  # an episode of `tiny`
QUARANTINED = 4


def furnish(made_corpus: Made) -> Workspace:
    """Add to a built workspace, in its own lake, what no small build has (`furnished.sql`)."""
    space = made_corpus.space
    lake = Lake(space)
    [(picture,)] = lake.rows(
        "SELECT sha256 FROM keyframes WHERE episode_index = 0 ORDER BY frame_index LIMIT 1"
    )
    lake.con.execute("SET VARIABLE hostile = ?", [HOSTILE])
    lake.con.execute((Path(__file__).parent / "furnished.sql").read_text())
    lake.con.execute(
        "UPDATE datasets SET license = 'Apache-2.0', source_uri = ?", [str(made_corpus.source)]
    )
    _store_replies(space, picture)
    _release(lake)
    lake.con.close()
    return space


def copy_furnished(furnished: Workspace, made_corpus: Made, folder: Path) -> Workspace:
    """A furnished workspace of a test's own beside its source, without what an explorer keeps."""
    source = shutil.copytree(made_corpus.source, folder / "source")
    ignored = shutil.ignore_patterns("explorer")
    space = Workspace(shutil.copytree(furnished.root, folder / "workspace", ignore=ignored))
    change(space, "UPDATE datasets SET source_uri = ?", str(source))
    return space


def _store_replies(space: Workspace, picture: str) -> None:
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
