"""Other names for datasets, and none: what people said goes with the name, what a build made is made again.

Samples, shards, splits and label runs are named after their dataset, so a build under the new name makes them anew. A
dataset that is removed leaves what people said of its recordings under a name of its own, such as arm.1, which no
dataset can have: so nothing of it is ever taken for a word on another recording.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from core.errors import UserError
from core.names import did_you_mean
from core.tables import TABLES
from ingest.registry import NAME_PATTERN
from warehouse.lake.connection import LakeConnection, literal
from warehouse.lake.lake import Lake
from warehouse.lake.place import while_nothing_is_built
from warehouse.lake.publication import content_key
from warehouse.lake.recordings import PERSON, RecordingUpdate, known_recordings
from warehouse.lake.references import stored_builds
from warehouse.lake.statements import say
from warehouse.lake.words import RENAMED

CARRIED = ("recordings", "recording_changes")
# Did a process end after a dataset was carried to a name, and before what people said followed it?
HALF_CARRIED = """
    FROM ducklake_snapshots('lake') WHERE commit_message = $1 || ' is ' || $2
    AND NOT EXISTS (FROM recordings WHERE dataset = $1)
    AND try_cast(commit_extra_info AS BIGINT) >= (
      SELECT coalesce(max(number), 0) FROM statements
      WHERE kind = 'renamed' AND dataset = $1)"""
# Of what was paid, released and scored: stays as it was
HISTORY = ("vlm_calls", "release_shards", "eval_predictions")
MADE = tuple(
    table.name
    for table in TABLES.values()
    if "dataset" in table.schema.names and table.name not in (*CARRIED, *HISTORY)
)


@dataclass(frozen=True)
class Holdings:
    """What a workspace has of a dataset.

    words: rows of what people said. imported: labels that no build makes again.
    """

    dataset: str
    episodes: int
    words: int
    imported: int

    @property
    def sentence(self) -> str:
        """Example: "arm: 12 episodes and their labels; 3 words of people"."""
        parts = [f"{self.episodes} episodes and their labels", f"{self.words} words of people"]
        if self.imported:
            parts.append(f"{self.imported} imported labels, which have to be imported again")
        return f"{self.dataset}: {'; '.join(parts)}"


def holdings(lake: LakeConnection, dataset: str) -> Holdings:
    """Raises UserError: there is nothing of such a dataset."""
    words = _count_words(lake, dataset)
    episodes = _count(lake, "episode_facts", dataset)
    runs = "label_run IN (SELECT label_run FROM label_runs WHERE annotator = 'imported')"
    imported = lake.rows(
        f"SELECT count(*) FROM episode_labels WHERE dataset = ? AND {runs}", [dataset]
    )[0][0]
    if not (
        dataset in stored_builds(lake) or words or episodes or _count(lake, "recordings", dataset)
    ):
        names = sorted(
            {*stored_builds(lake), *lake.column("SELECT DISTINCT dataset FROM recordings")}
        )
        hint = did_you_mean(dataset, names) or "; proccorpus status lists them"
        raise UserError(f"there is no dataset {dataset!r}{hint}")
    return Holdings(dataset, episodes, words, imported)


def _count(lake: LakeConnection, table: str, dataset: str) -> int:
    return lake.rows(f"SELECT count(*) FROM {table} WHERE dataset = ?", [dataset])[0][0]


def _count_words(lake: LakeConnection, dataset: str) -> int:
    sql = "SELECT count(*) FROM statements WHERE dataset = ? AND kind NOT IN ('build', 'renamed')"
    return lake.rows(sql, [dataset])[0][0]


def _is_free(lake: LakeConnection, dataset: str, name: str) -> bool:
    """Is a name in no use, or has what people said still to follow its dataset there?"""
    counts = [_count(lake, table, name) for table in CARRIED]
    is_used = name in stored_builds(lake) or any(counts) or _count_words(lake, name)
    return not is_used or bool(lake.rows(HALF_CARRIED, [dataset, name]))


def rename(lake: Lake, dataset: str, name: str) -> None:
    """Call a dataset, or what people said of one that was removed, by a name that is not in use.

    Raises UserError, also while a build goes on.
    """
    with while_nothing_is_built(lake.workspace, f"renaming {dataset}"):
        holdings(lake, dataset)
        if not re.fullmatch(NAME_PATTERN, name):
            raise UserError(
                f"{name!r} is no name: small letters, digits, _ and -, and first a letter or digit"
            )
        if not _is_free(lake, dataset, name):
            raise UserError(
                f"the name {name} is in use: choose another, or remove it first (datasets remove {name})"
            )
        config = None
        builds = stored_builds(lake)
        if dataset in builds:
            fields = json.loads(builds[dataset][0])
            fields["dataset"]["name"] = name
            config = {"dataset": name, "config": json.dumps(fields, separators=(",", ":"))}
        _move(lake, dataset, name, config)


def remove(lake: Lake, dataset: str) -> str | None:
    """Take a dataset out of the corpus; returns the name that what people said of it has now; None: nobody said
    anything. Files of shards and pictures go with the next sweep and gc.

    Raises UserError, also while a build goes on.
    """
    with while_nothing_is_built(lake.workspace, f"removing {dataset}"):
        has_words = holdings(lake, dataset).words > 0
        names = (f"{dataset}.{number}" for number in count(1))
        name = next(name for name in names if _is_free(lake, dataset, name))
        _move(lake, dataset, name, None)
    return name if has_words else None


def _move(lake: Lake, dataset: str, name: str, config: Mapping[str, Any] | None) -> None:
    """Carry what people said to another name, with what their recordings are told by, and drop what
    builds made."""
    update = RecordingUpdate(dataset, PERSON)
    contents = f"dataset = {literal(dataset)}"
    for recording in known_recordings(lake, "r.dataset = ?", [dataset], contents):
        update.put(replace(recording, is_here=False))
        update.put_fingerprint(recording)
    update.keep_pictures(lake)
    rows = update.upserts()
    if config is not None:
        [(created_at,)] = lake.rows(
            "SELECT created_at FROM build_configs WHERE dataset = ?", [dataset]
        )
        # No hash of any configuration: the next build stores its own
        row = {**config, "config_hash": content_key("renamed", name), "created_at": created_at}
        rows["build_configs"] = TABLES["build_configs"].rows([row])
    # What people said follows in a commit right behind
    with lake.words.saying():
        say(lake, RENAMED, lambda: [{"dataset": dataset, "new_name": name}])
        lake.carry(f"{dataset} is {name}", dataset, name, CARRIED, MADE, rows)
