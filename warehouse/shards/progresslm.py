"""ProgressLM's samples: profiles, so many samples of each kind for one phase of training, drawn
from a release's train split; and the right answers, for reward functions, ours and those of other
trainers.

Counts are those of the published ProgressLM sets (Prog-SFT, 25,248 samples; Prog-RL, 20,428), which
share no run.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from core.paths import Workspace
from warehouse.lake.sql import open_for_users
from warehouse.releases.release import Release
from warehouse.shards.shard import Sample, ShardError

KIND = "CASE WHEN family = 'progresslm_unanswerable' THEN family || ' ' || variant ELSE family END"
# By a hash of the group: runs of one start state or session are in one phase, whatever the seed, with the samples that
# show no others
PHASES = ("sft", "rl")


@dataclass(frozen=True)
class Profile:
    phase: str
    # By kind: the family, and for unanswerable samples in words or in pictures
    counts: Mapping[str, int]


KINDS = (
    *("progresslm_visual", "progresslm_cross_view", "progresslm_text"),
    *("progresslm_unanswerable visual", "progresslm_unanswerable text"),
)
PROFILES = {
    "progresslm_sft": Profile("sft", dict(zip(KINDS, (7566, 6532, 7759, 2228, 1163), strict=True))),
    "progresslm_rl": Profile("rl", dict(zip(KINDS, (5035, 5172, 6301, 2228, 1692), strict=True))),
}


@dataclass(frozen=True)
class Drawn:
    """The samples of a profile, and per kind how many were wanted, there to be drawn from, and drawn."""

    # sample_id, kind, dataset, episode_index, split, shard, offset; in drawn order
    samples: pa.Table
    kinds: tuple[dict[str, int | str], ...]


def draw(
    workspace: Workspace, release: Release, name: str, seed: int = 0, split: str = "train"
) -> Drawn:
    """Draw samples of a split, in think form: each run gives one before any gives two; fewer where fewer are there."""
    profile = PROFILES[name]
    con = open_for_users(workspace, release.snapshot)
    shards = [s.shard for s in release.shards(split)]
    candidates = con.execute(
        f"""
        WITH s AS (
          SELECT s.sample_id, {KIND} AS kind, s.dataset, s.episode_index, s.split, l.shard, l."offset",
                 sha256(? || s.sample_id) AS draw, s.pictures
          FROM samples s JOIN sample_location l USING (sample_id)
          WHERE s.form = 'think' AND list_contains(?, l.shard)),
        pictured AS (
          SELECT sample_id, dataset, episode_index FROM s UNION ALL
          SELECT sample_id, dataset, unnest(pictures).episode_index FROM s),
        of_phase AS (
          SELECT sample_id FROM pictured JOIN splits g USING (dataset, episode_index) GROUP BY 1
          HAVING bool_and(ord(sha256('0' || chr(10) || dataset || chr(10) || g."group")[1]) % 2 = ?)),
        n AS (
          SELECT s.* EXCLUDE pictures,
                 row_number() OVER (PARTITION BY kind, dataset, episode_index ORDER BY draw) AS nth
          FROM s JOIN of_phase USING (sample_id))
        SELECT *, row_number() OVER (PARTITION BY kind ORDER BY nth, draw) AS place FROM n ORDER BY kind, place""",
        [f"{seed}\n", shards, PHASES.index(profile.phase)],
    ).to_arrow_table()
    kind_of_row = np.array(candidates["kind"])
    kinds = []
    parts = []
    for kind, count in profile.counts.items():
        of_kind = candidates.filter(kind_of_row == kind)
        parts.append(of_kind.slice(0, count))
        kinds.append(
            {"kind": kind, "wanted": count, "there": of_kind.num_rows, "drawn": parts[-1].num_rows}
        )
    return Drawn(pa.concat_tables(parts).drop_columns(["draw", "nth", "place"]), tuple(kinds))


NONE = "n/a"
ITEM = re.compile(r"^(\d+)\. ", re.MULTILINE)  # of the demonstration, in words or in pictures
SCORE = re.compile(r"<score>(.*?)</score>", re.DOTALL)


def ground_truth(sample: Sample) -> dict[str, str | int]:
    """What an answer is compared with: the item of the demonstration, the score in percent, and how
    many items it has.

    Raises ShardError where question, answer and columns of a sample contradict each other.
    """
    row = sample.row
    score = _score(row["answer"], row["form"])
    items = [int(number) for number in ITEM.findall(row["question"])]
    reference = NONE if row["reference"] is None else str(row["reference"])

    # Question, answer and columns are written by one template: where they disagree, the sample cannot be judged
    is_counted = items == list(range(1, len(items) + 1))
    both_or_none = (score == NONE) == (reference == NONE)
    is_item = reference == NONE or 1 <= int(reference) <= len(items)
    # A demonstration in pictures has one for each item; the last picture is the state to judge
    num_pictures = len(sample.pictures)
    is_shown = num_pictures <= 1 or len(items) == num_pictures - 1
    if not (is_counted and both_or_none and is_item and is_shown):
        raise ShardError(
            f"sample {row['sample_id']}: its question, answer and reference do not go together"
        )

    return {
        "ref": reference,
        "score_percent": score.removesuffix("%"),
        "score_fraction": NONE if score == NONE else f"{float(score.removesuffix('%')) / 100:.4f}",
        "score_text": score,
        "demo_count": len(items),
        "target_response": row["answer"],
    }


def _score(answer: str, form: str) -> str:
    """The score that an answer gives: in think form what stands between the tags, else the whole answer."""
    tagged = SCORE.search(answer) if form == "think" else None
    return (tagged[1] if tagged else answer).strip()
