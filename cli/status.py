"""What the corpus holds, a row for each dataset."""

from operator import itemgetter

from cli.lakes import ReadLake
from cli.options import (
    AS_JSON,
    Result,
    command,
)
from cli.output import show
from pipeline.config import present_builds
from pipeline.plan import stale_chunks
from pipeline.stages import stage_specs
from warehouse.lake import Lake, recordings
from warehouse.lake.outcomes import assumption, chunks_to_build, question
from warehouse.lake.references import sentences

COLUMNS = (
    "dataset, episodes, ok, quarantined, unlabelled, frames, labelled_frames, labels, samples, shards, outcomes_known, "
    "assumed_complete, look_unfinished"
)
# By dataset how many pictures an encoder has looked at, in words
EMBEDDED = """
SELECT dataset, string_agg(count || ' pictures by ' || encoder, ', ' ORDER BY count DESC, encoder)
FROM (SELECT dataset, encoder, count(*) AS count FROM embeddings GROUP BY ALL) GROUP BY dataset"""
SHOWN_OF_COMMIT = 12  # characters; --format json has all


def status_rows(lake: Lake) -> list[dict]:
    """Per dataset: episodes; frames, labels and known outcomes of usable ones, how many are assumed
    complete and how many look unfinished; samples, shards; chunks that a build would make anew; the
    commit of a hub's dataset that was read; what an encoder has looked at.
    """

    def asked() -> list[dict]:
        specs = {name: stage_specs(build) for name, build in present_builds(lake).items()}
        # Outcomes are a part of the source, which is not looked at here
        stale = stale_chunks(lake, specs)
        chunks_by_name = chunks_to_build(lake)
        embedded = dict(lake.rows(EMBEDDED))
        stale |= {name: max(chunks, stale.get(name, 0)) for name, chunks in chunks_by_name.items()}
        revisions = dict(lake.rows("SELECT dataset, source_revision FROM datasets"))
        rows = lake.dicts(f"SELECT {COLUMNS} FROM coverage ORDER BY dataset")
        for row in rows:
            name = row["dataset"]
            row["stale_chunks"] = stale.get(name, 0)
            row["embeddings"] = embedded.get(name)
            row["revision"] = revisions.get(name)
        return rows

    with lake.reading():
        return lake.once("status", asked)


def show_status(rows: list[dict]) -> None:
    """Rows of status_rows as people read them: commits shortened; these and embeddings only where
    there are any; then what is asked.
    """
    empty = [
        n for n in ("embeddings", "revision", "unlabelled") if not any(map(itemgetter(n), rows))
    ]
    hidden = {"assumed_complete", "look_unfinished", *empty}
    show(list(map(_in_words, rows)), hidden=hidden)
    for text in filter(
        None, (question(row["dataset"], row["look_unfinished"], row["ok"]) for row in rows)
    ):
        print(f"{text}: proccorpus explore, page Review, Look unfinished")
    for text in filter(
        None, (assumption(row["dataset"], row["assumed_complete"], row["ok"]) for row in rows)
    ):
        print(f"{text}; say it: proccorpus explore (G, B and U on a run), or say outcome")


def _in_words(row: dict) -> dict:
    share = f"{row['outcomes_known']} of {row['ok']} known"
    if row["assumed_complete"]:
        share += f", {row['assumed_complete']} assumed complete"
    words = row | {"outcomes_known": share, "revision": (row["revision"] or "")[:SHOWN_OF_COMMIT]}
    return {
        "outcomes" if name == "outcomes_known" else name: value for name, value in words.items()
    }


@command("status")
def status(lake: ReadLake) -> Result:
    """Show how much there is of each dataset, from episodes to shards.

    Counts usable and quarantined episodes, frames, labels, known outcomes and samples.
    """
    with lake.reading():
        rows = status_rows(lake)
        if AS_JSON.get():
            place = {"workspace": str(lake.workspace.root), "snapshot": lake.snapshot()}
            return Result(place | {"datasets": rows})
        show_status(rows)
        facts = (*sentences(lake).items(), *recordings.sentences(lake).items())
        return Result(lines=[f"{name}: {text}" for name, text in facts])
