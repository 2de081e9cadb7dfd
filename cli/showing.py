"""What the corpus holds as lists: `show NAME`, for views of the lake and for what is computed besides."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from cli.options import (
    AS_JSON,
    DONE,
    FAILED,
    Result,
    Rows,
    SetOption,
    Space,
    command,
    note,
    say,
    stale_lines,
    warn,
)
from cli.saying import Episodes
from core.errors import UserError
from core.files import write_file
from core.names import did_you_mean
from core.paths import Workspace
from core.settings import arguments_of
from core.values import plain
from pipeline.models import model_rows
from pipeline.suggesting import suggest
from warehouse.exports.corrections import (
    labelling_config,
    lines_of,
    to_tasks,
)
from warehouse.lake import Lake, corrections
from warehouse.lake import digest as lake_digest
from warehouse.lake.connection import literal
from warehouse.lake.lake import lake_to_read
from warehouse.lake.lists import LISTS, list_named
from warehouse.lake.outcomes import chunks_to_build
from warehouse.lake.schema import columns, relations
from warehouse.lake.similarity import most_similar
from warehouse.lake.sql import RELATIONS, answer, open_for_users
from warehouse.lake.stored import labels_of
from warehouse.releases.release import get_release
from warehouse.shards.check import check_shard

MAX_ROWS = 100  # of a list, in a table for people
WAITING = {"current_corrections", "current_outcomes", "current_references"}  # for the next build


# Lists that are no query


def digest(space: Workspace) -> Rows:
    """One hash per content table: equal inputs, configuration and seed give equal hashes."""
    hashes = lake_digest(lake_to_read(space)).items()
    return [{"table": table, "hash": content_hash} for table, content_hash in hashes]


def schema(space: Workspace, *names: str) -> Rows:
    """Tables and views; with names their columns, with units and values of your corpus."""
    # Examples come out of the corpus; without one the schema is described all the same
    con = open_for_users(space) if names and space.exists() else None
    return [vars(column) for column in columns([*names], con)] if names else relations()


def models(space: Workspace) -> Rows:
    """Checkpoints of the workspace, models and adapters, with their training data or origin."""
    return model_rows(space)


def similar(
    space: Workspace,
    dataset: str,
    episode: int,
    frame: int | None = None,
    camera: str | None = None,
    among: str | None = None,
) -> Rows:
    """Runs most similar to one run, or frames to one frame; among: only runs of this dataset."""
    con = lake_to_read(space).con
    query, rows = most_similar(
        con,
        dataset,
        episode,
        frame,
        camera,
        among,
        MAX_ROWS,
    )
    say(f"{dataset} episode {episode} by {query.camera}, as {query.encoder} sees it.")
    if query.frame_index != frame:
        say(
            f"The encoder did not look at frame {frame}: compared is the nearest that it did, {query.frame_index}."
        )
    for name, encoders in query.not_compared.items():
        say(f"Not compared: {name}, which {encoders} has looked at.")
    return rows


def suggestions(
    space: Workspace,
    dataset: str,
    task: str | None = None,
) -> Rows:
    """Which run of each task to label next, and why; ask_outcome: runs of which first to say how
    they ended."""
    return list(map(asdict, suggest(lake_to_read(space), dataset, task)))


def shard_faults(space: Workspace, release: str | None = None) -> Rows:
    """Damaged shards, of a release or of the corpus: hash, index and pictures of each sample are
    read."""
    lake = lake_to_read(space)
    # Refuses a name that is no release, whose list of shards would be empty and so whole
    name = get_release(lake, release).name if release else None
    source, values = ("release_shards WHERE name = ?", [name]) if name else ("shards", [])
    sql = f"SELECT split, shard, store, sha256, bytes, samples FROM {source} ORDER BY shard"
    rows = lake.rows(sql, values)
    damaged: Rows = []
    for split, shard, store, sha256, size, _ in rows:
        problems = check_shard(lake.workspace.shard(split, shard, store), sha256, size)
        damaged += [{"shard": shard, "split": split, "problem": problem} for problem in problems]
    whole = len(rows) - len({row["shard"] for row in damaged})
    say(f"{whole} of {len(rows)} shards, with {sum(row[-1] for row in rows)} samples, are whole.")
    return damaged


def correction_lines(
    space: Workspace,
    dataset: str | None = None,
) -> Rows:
    """Every correction ever made, whole: --out FILE.jsonl is what `say correction` reads."""
    return lines_of(_corrections(lake_to_read(space), "corrections", dataset))


def label_studio(
    space: Workspace,
    dataset: str | None = None,
    episodes: Episodes = None,
) -> Rows:
    """Corrections in force, and labels of episodes to correct, as tasks for Label Studio."""
    if episodes and dataset is None:
        raise UserError("label_studio: name the dataset of the episodes")
    lake = lake_to_read(space)
    rows = _corrections(lake, "current_corrections", dataset)
    # What waits for review is not accepted, so no task shows it
    if num_waiting := sum(row["status"] == corrections.REVIEW for row in rows):
        warn([f"{num_waiting} corrections that wait for review"], "left out")
    labels: Rows = []
    if episodes:
        whole_labels = labels_of(lake.con, str(dataset), episodes=episodes, whole=True)
        for episode_index, label in whole_labels.items():
            facts = {"dataset": dataset, "episode_index": episode_index, "plan": [*label.plan]}
            segments = [asdict(segment) for segment in label.segments]
            labels.append(facts | {"label_run": label.label_run, "segments": segments})
    return to_tasks(lake, rows, labels)


def _corrections(lake: Lake, view: str, dataset: str | None) -> Rows:
    sql = f"FROM {view} WHERE dataset = coalesce(?, dataset) ORDER BY created_at, correction_id"
    return lake.dicts(sql, [dataset])


COMPUTED: dict[str, Callable[..., Rows]] = {
    function.__name__: function
    for function in (
        correction_lines,
        digest,
        label_studio,
        models,
        schema,
        shard_faults,
        similar,
        suggestions,
    )
}
FAULTY = {"shard_faults"}  # lists of which a row is a failure
HIDDEN = ("expected",)  # columns of parts, which tables leave to JSON


# The command


def list_names() -> list[str]:
    return [*LISTS, *COMPUTED, *sorted(RELATIONS - LISTS.keys())]


@command("show")
def show(
    space: Space,
    name: Annotated[
        str | None,
        Argument(metavar="[VIEW]", help="List, table or view.", autocompletion=list_names),
    ] = None,
    arguments: Annotated[
        list[str] | None,
        Argument(metavar="[DATASET]...", help="Only this dataset; of some lists what they need."),
    ] = None,
    where: Annotated[str | None, Option(help="SQL condition, such as 'episode_index < 5'.")] = None,
    limit: Annotated[
        int | None, Option(min=0, help="Maximum number of rows; tables show 100 by default.")
    ] = None,
    settings: SetOption = None,
    out: Annotated[
        Path | None, Option(help="Write all rows to a file: .jsonl a line each, else a JSON list.")
    ] = None,
) -> Result:
    """Show a list: a view or table of the corpus, or what is computed from it. Without VIEW, all
    lists."""
    if name is None:
        return Result(all_lists())
    empty = "Nothing."
    if name in COMPUTED:
        if where is not None:
            raise UserError(f"--where needs a view; {name} is computed")
        function = COMPUTED[name]
        rows = function(space, *arguments_of(function, arguments or (), settings or ()))
    else:
        [dataset] = arguments_of(_of_dataset, arguments or (), settings or ())
        rows = _rows_of_view(lake_to_read(space), name, dataset, where)
        empty = list_named(name).empty
    if out is not None:
        return Result(lines=_written(name, rows, out))
    most = MAX_ROWS if limit is None and not AS_JSON.get() else limit
    if most is not None and len(rows) > most:
        note(f"({len(rows)} rows, the first {most} shown; --limit N, or --format json for all)")
    lines = stale_lines(chunks_to_build(lake_to_read(space))) if name in WAITING else []
    code = FAILED if rows and name in FAULTY else DONE
    return Result(rows[:most], empty=empty, hidden=HIDDEN, lines=lines, code=code)


def all_lists() -> Rows:
    """The name of each list, and what it answers: those for people first."""
    rows = [{"name": name, "what": listing.question} for name, listing in LISTS.items()]
    rows += [
        {"name": name, "what": " ".join(str(function.__doc__).split())}
        for name, function in COMPUTED.items()
    ]
    further = (relation for relation in relations() if relation["name"] not in LISTS)
    return [*rows, *({"name": each["name"], "what": each["comment"]} for each in further)]


def _of_dataset(space: Workspace, dataset: str | None = None) -> None:
    """What a list takes that is a query."""


def _rows_of_view(
    lake: Lake,
    name: str,
    dataset: str | None,
    where: str | None,
) -> Rows:
    """Rows of a list or relation that fit. Raises UserError: no such list; SqlError: a wrong
    condition."""
    if name not in LISTS and name not in RELATIONS:
        hint = did_you_mean(name, list_names()) or "; proccorpus show lists all"
        raise UserError(f"there is no list {name!r}{hint}")
    conditions = [f"({where})"] if where else []
    if dataset is not None:
        names = lake.column("SELECT dataset FROM datasets ORDER BY 1")
        if dataset not in names:
            hint = did_you_mean(dataset, names) or "; proccorpus status lists them"
            raise UserError(f"there is no dataset {dataset!r} in this corpus{hint}")
        conditions.append(f"dataset = {literal(dataset)}")
    condition = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return answer(lake.con, f"FROM ({list_named(name).sql}){condition}").read_all().to_pylist()


def _written(name: str, rows: Rows, out: Path) -> list[str]:
    """Write rows to a file; says what was written, in lines."""
    lines = [json.dumps(plain(row), ensure_ascii=False) for row in rows]
    text = "\n".join((*lines, "")) if out.suffix == ".jsonl" else f"[{',\n'.join(lines)}]\n"
    write_file(out, text.encode())
    written = [f"{len(rows)} rows in {out}"]
    if name == label_studio.__name__:
        interface = out.with_suffix(".xml")
        write_file(interface, labelling_config(rows).encode())
        written.append(f"the labelling interface in {interface}")
    return written
