"""What the corpus holds, a row for each dataset."""

from collections.abc import Collection
from functools import partial

import typer

from cli.options import DEFAULT_WORKSPACE, FormatOption, WorkspaceOption, space_at
from cli.output import print_json, share_known, show
from warehouse.lake import Lake
from warehouse.lake.embedded import embedded_pictures
from warehouse.lake.outcomes import chunks_to_build, known_outcomes, knows_assumed, question
from warehouse.lake.references import sentences

app = typer.Typer()
STATUS_COLUMNS = (
    "dataset",
    "episodes",
    "ok",
    "quarantined",
    "frames",
    "labelled_frames",
    "labels",
    "samples",
    "shards",
)
SHOWN_OF_COMMIT = 12  # characters; --format json has all
UNFINISHED_AT = "proccorpus explore, page Review, Look unfinished"


def status_rows(lake: Lake) -> list[dict]:
    """Per dataset: episodes; frames, labels and known outcomes of usable ones, how many are assumed complete and how
    many look unfinished; samples, shards; chunks that people made stale; the commit of a hub's dataset that was read;
    what an encoder has looked at.
    """
    with lake.reading():
        return lake.once("status", partial(_status_rows, lake))


def _status_rows(lake: Lake) -> list[dict]:
    # Asked once: the view looks at every table
    of_ends = ("outcomes_known", "assumed_complete", "look_unfinished")
    has_ends = knows_assumed(lake)
    asked = [*of_ends] if has_ends else [f"0 AS {name}" for name in of_ends]
    rows = lake.dicts(f"SELECT {', '.join([*STATUS_COLUMNS, *asked])} FROM coverage ORDER BY dataset")
    known = {} if has_ends else known_outcomes(lake)
    stale, embedded = chunks_to_build(lake), embedded_pictures(lake)
    revisions = dict(lake.rows("SELECT dataset, source_revision FROM datasets"))
    for row in rows:
        dataset = row["dataset"]
        ends = {name: row.pop(name) for name in of_ends}
        row |= ends | ({} if has_ends else {"outcomes_known": known.get(dataset, 0)})
        row["stale_chunks"] = stale.get(dataset, 0)
        row["revision"] = revisions.get(dataset)
        row["embeddings"] = embedded.get(dataset)
    return rows


def show_status(rows: list[dict]) -> None:
    """Rows of status_rows as people read them: commits shortened; these and embeddings only where there are any; then
    what is asked.
    """
    shown = [_with_share(row) for row in rows]
    are_pinned, has_embeddings = any(row["revision"] for row in rows), any(row["embeddings"] for row in rows)
    for row in shown:
        revision = row.pop("revision")
        if are_pinned:
            row["revision"] = (revision or "")[:SHOWN_OF_COMMIT]
        if not has_embeddings:
            del row["embeddings"]
    show(shown, "table")
    asked = [question(row["dataset"], row["look_unfinished"], row["ok"]) for row in rows]
    for text in filter(None, asked):
        print(f"{text}: {UNFINISHED_AT}")


def show_references(lake: Lake, names: Collection[str]) -> None:
    """How many runs of each of the named datasets are labelled like which references."""
    for name, text in sentences(lake).items():
        if name in names:
            print(f"{name}: {text}")


def _with_share(row: dict) -> dict:
    """The row with its outcomes in one column of words."""
    share = share_known(row["outcomes_known"], row["ok"])
    if row["assumed_complete"]:
        share += f", {row['assumed_complete']} assumed complete"
    words = {"outcomes" if name == "outcomes_known" else name: value for name, value in row.items()}
    words["outcomes"] = share
    return {name: value for name, value in words.items() if name not in ("assumed_complete", "look_unfinished")}


@app.command()
def status(workspace: WorkspaceOption = DEFAULT_WORKSPACE, format: FormatOption = "table") -> None:
    """Show each dataset's episodes, usable and quarantined ones, frames, labels, samples and shards."""
    space = space_at(workspace)
    lake = Lake(space, read_only=True)
    with lake.reading():
        rows = status_rows(lake)
        if format == "table":
            show_status(rows)
            show_references(lake, [row["dataset"] for row in rows])
        else:
            print_json({"workspace": str(space.root), "snapshot": lake.snapshot(), "datasets": rows})
