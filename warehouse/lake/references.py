"""References: runs whose label people vouch for, and which the other runs of their task are labelled like.

A run is one by an accepted correction, by steps that its source brings where other runs of the task have none, or
because somebody says so, and none once somebody says that (`vouch`). The view current_references has them
all. Runs of one text are of one task, and so are those of texts that people joined.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from difflib import get_close_matches
from typing import Any, NamedTuple

import duckdb

from core.domain.label import Label
from core.domain.label_run import human_run
from core.values import grouped
from warehouse.lake import corrections
from warehouse.lake.connection import OF_USABLE, LakeConnection, literal
from warehouse.lake.corrections import segments_of
from warehouse.lake.lake import Lake
from warehouse.lake.publication import content_key
from warehouse.lake.statements import CorrectionError, checked_text, say, unless_said

SHOWN_BY = ("auto", "transfer")  # annotators with which runs are labelled like references
STAGE = "transfer"
MOST_NAMED = 10  # references, in a sentence


# Which ones there are


def references_of(
    lake: Lake, dataset: str, task: str | None
) -> dict[int, tuple[int, Label | None]]:
    """The references of a task whose frames are built, by episode: the chunk of each, and the label
    that counts; None where it is the steps that the source brings.

    task: its text, or the one that stands for several; None: runs without a text, which show one
    another nothing.
    """
    rows = lake.dicts(
        "SELECT r.episode_index, r.chunk, c.segments, c.plan FROM current_references r "
        "LEFT JOIN corrections c ON c.correction_id = r.source "
        "WHERE r.dataset = ? AND r.same_as = ? AND r.content_hash IS NOT NULL "
        "ORDER BY r.episode_index",
        [dataset, task],
    )
    return {row["episode_index"]: (row["chunk"], _label(row)) for row in rows}


def _label(row: Mapping[str, Any]) -> Label | None:
    """The label of a correction; None: there is no correction."""
    if not row["plan"]:
        return None
    return Label(segments_of(row), len(row["plan"]), tuple(row["plan"]))


class LabelSources(NamedTuple):
    """`brings_steps`: does the source bring timed steps of usable episodes? `has_references`: can some runs be labelled
    like others of their task?"""

    brings_steps: bool
    has_references: bool


def steps_and_references(lake: LakeConnection, dataset: str) -> LabelSources:
    """What a dataset's labels may be made of, beside its signals and pictures."""
    return LabelSources(_brings_usable_steps(lake, dataset), _has_references(lake, dataset))


def _brings_usable_steps(lake: LakeConnection, dataset: str) -> bool:
    """Does the source bring timed steps of episodes that the listing found usable?"""
    if not brings_steps(lake, dataset):
        return False
    usable_episodes = lake.rows(
        "SELECT 1 FROM episode_facts f WHERE dataset = ? AND len(steps) > 0 AND NOT EXISTS (SELECT 1 FROM findings "
        "x WHERE x.dataset = f.dataset AND x.episode_index = f.episode_index AND x.stage = 'episodes' "
        "AND x.severity = 'unusable') LIMIT 1",
        [dataset],
    )
    return bool(usable_episodes)


def _has_references(lake: LakeConnection, dataset: str) -> bool:
    """Is there a task of which some runs are references, and others are not?"""
    if not may_have_references(lake, dataset):
        return False
    tasks = lake.rows(
        "WITH shown AS (FROM current_references WHERE dataset = $1) "
        "SELECT coalesce(j.same_as, f.task) AS task FROM episode_facts f "
        "LEFT JOIN current_joined_tasks j ON j.dataset = f.dataset AND j.task = f.task WHERE f.dataset = $1 "
        "AND f.task IS NOT NULL GROUP BY 1 "
        "HAVING count(*) FILTER (f.episode_index IN (SELECT episode_index FROM shown)) "
        "BETWEEN 1 AND count(*) - 1 LIMIT 1",
        [dataset],
    )
    return bool(tasks)


def joined_tasks(lake: LakeConnection, dataset: str) -> dict[str, str]:
    """The text that stands for the task, by each text that people joined to it; others stand for themselves."""
    if dataset not in lake.datasets_in("joined_task"):
        return {}
    return dict(
        lake.rows(
            "SELECT task, same_as FROM current_joined_tasks WHERE dataset = ? ORDER BY 1", [dataset]
        )
    )


def joined_texts(con: duckdb.DuckDBPyConnection) -> dict[tuple[str, str], str]:
    """The same of all datasets, by dataset and text."""
    rows = con.execute("SELECT dataset, task, same_as FROM current_joined_tasks").fetchall()
    return {(dataset, task): same_as for dataset, task, same_as in rows}


def joined_stamps(lake: LakeConnection, dataset: str) -> dict[int, str]:
    """By chunk, a hash of the joined texts of its runs, and of those that its samples may show: what the plan depends
    on. Only chunks with such texts.
    """
    if dataset not in lake.datasets_in("joined_task"):
        return {}
    rows = lake.rows(
        "WITH shown AS (SELECT dataset, episode_index, chunk FROM episode_facts WHERE dataset = $1 "
        "UNION ALL SELECT dataset, episode_index, chunk FROM other_tasks WHERE dataset = $1) "
        "SELECT s.chunk, list(DISTINCT to_json([j.task, j.same_as])::VARCHAR ORDER BY 1) FROM shown s "
        "JOIN episode_facts f USING (dataset, episode_index) JOIN current_joined_tasks j USING (dataset, task) "
        "GROUP BY 1",
        [dataset],
    )
    return {chunk: content_key("joined tasks", *sorted(texts)) for chunk, texts in rows}


def chunks_of_references(lake: Lake, dataset: str) -> set[int]:
    """The chunks that references lie in, also those whose frames are not built yet."""
    return set(
        lake.column("SELECT DISTINCT chunk FROM current_references WHERE dataset = ?", [dataset])
    )


def reference_stamps(lake: LakeConnection, dataset: str) -> dict[int, str]:
    """By chunk, a hash of the references of its runs' tasks: what the plan depends on.

    Only chunks that have runs of a task with a reference, beside the references themselves.
    """
    if not may_have_references(lake, dataset):
        return {}
    # What a reference shows: its label, and what was measured and seen of it, hashed with the rest of its chunk
    rows = lake.rows(
        "SELECT r.same_as, r.episode_index, r.source, r.success, r.content_hash, list(s.stage || ' ' || s.output_hash "
        "ORDER BY s.stage) FROM current_references r JOIN stage_runs s ON s.dataset = r.dataset AND s.chunk = r.chunk "
        "WHERE r.dataset = ? AND r.same_as IS NOT NULL AND r.content_hash IS NOT NULL "
        "AND s.stage IN ('frames', 'embeddings') "
        "GROUP BY ALL ORDER BY 1, 2",
        [dataset],
    )
    facts_by_task = grouped((task, json.dumps([task, *facts])) for task, *facts in rows)
    tasks = lake.rows(
        "SELECT DISTINCT f.chunk, coalesce(j.same_as, f.task) FROM episode_facts f "
        "LEFT JOIN current_joined_tasks j ON j.dataset = f.dataset AND j.task = f.task "
        "WHERE f.dataset = ? AND NOT list_contains(?, f.episode_index) ORDER BY ALL",
        [dataset, [episode for _, episode, *_ in rows]],
    )
    of_chunk: dict[int, list[str]] = {}
    for chunk, task in tasks:
        if task in facts_by_task:
            of_chunk.setdefault(chunk, []).extend(facts_by_task[task])
    return {chunk: content_key("references", *sorted(facts)) for chunk, facts in of_chunk.items()}


def may_have_references(lake: LakeConnection, dataset: str | None = None) -> bool:
    """A quick look, at one dataset or at all: the view joins more than a plan should read where there are none."""
    vouched = lake.datasets_in("correction") | lake.datasets_in("reference")
    return bool(dataset in vouched if dataset else vouched) or brings_steps(lake, dataset)


def brings_steps(lake: LakeConnection, dataset: str | None = None) -> bool:
    """Does the source bring timed steps of any episode of a dataset, or of any dataset?"""
    condition = f"dataset = {literal(dataset)} AND " if dataset else ""
    sql = f"SELECT 1 FROM episode_facts WHERE {condition}len(steps) > 0 LIMIT 1"
    return lake.once(("brings steps", dataset), lambda: bool(lake.rows(sql)))


def pending(lake: Lake) -> dict[str, set[int]]:
    """Of each dataset the chunks that the next build labels anew, because their references are others by now, or makes
    other samples of, because other texts are one task.
    """
    chunks = {
        dataset: pending_chunks(lake, dataset)
        for dataset, (text, _) in stored_builds(lake).items()
        if stated_annotator(text) in SHOWN_BY
    }
    for dataset in lake.datasets_in("joined_task"):
        chunks.setdefault(dataset, set()).update(joined_chunks(lake, dataset))
    return {dataset: of_dataset for dataset, of_dataset in chunks.items() if of_dataset}


def stored_builds(lake: LakeConnection) -> dict[str, tuple[str, str]]:
    """By dataset the configuration that it was last built with, as JSON, and its hash."""
    rows = lake.once(
        "builds",
        lambda: lake.rows("SELECT dataset, config, config_hash FROM build_configs ORDER BY 1"),
    )
    return {dataset: (text, config_hash) for dataset, text, config_hash in rows}


def note_builds(lake: LakeConnection) -> None:
    """State how each dataset is built, where that was not stated or is another by now."""
    rows = [
        {"dataset": dataset, "config": config, "config_hash": config_hash}
        for dataset, (config, config_hash) in stored_builds(lake).items()
    ]
    say(lake, "build", lambda: rows, complete=unless_said, is_batch=False)


def stated_annotator(config: str) -> str:
    """The annotator that a dataset's kept configuration names, or `auto`."""
    build = json.loads(config)
    return build["dataset"].get("annotator") or build["stages"].get("annotator", "auto")


def pending_chunks(lake: LakeConnection, dataset: str) -> set[int]:
    """The chunks of a dataset that the next build labels anew, where it labels runs like references."""
    built = dict(
        lake.rows(
            "SELECT chunk, arg_max(references_hash, snapshot) FROM stage_runs "
            f"WHERE stage = {literal(STAGE)} AND dataset = {literal(dataset)} GROUP BY 1"
        )
    )
    present_stamps = reference_stamps(lake, dataset)
    return {
        chunk
        for chunk in built.keys() | present_stamps.keys()
        if (built.get(chunk) or "") != present_stamps.get(chunk, "")
    }


# What people say


def vouch(
    lake: Lake,
    dataset: str,
    episode_index: int,
    *,
    author: str,
    label_run: str | None = None,
    is_reference: bool = True,
) -> dict[str, Any]:
    """Make a run a reference: somebody vouches for its label; returns the row. Not is_reference: it is none any more,
    and its label counts as before.

    label_run: the label vouched for; None: the one that counts. A person's label and the source's
    own steps stay what they are. Any other is kept as an accepted correction: an annotator may make
    its labels anew.

    Raises CorrectionError.
    """
    place = [dataset, episode_index]
    sql = "SELECT 1 FROM current_references WHERE dataset = ? AND episode_index = ?"
    if bool(lake.rows(sql, place)) == is_reference:
        all_of_them = "no reference; proccorpus show current_references has them all"
        relation = "a reference already" if is_reference else all_of_them
        raise CorrectionError(f"episode {episode_index} of {dataset} is {relation}")
    run = _kept_run(lake, place, author, label_run) if is_reference else None
    row = {
        "dataset": dataset,
        "episode_index": episode_index,
        "is_reference": is_reference,
        "label_run": run,
        "author": checked_text("author", author, 100),
    }
    [saved] = say(lake, "reference", lambda: [row])
    return saved | {"label_run": run}


def _kept_run(lake: Lake, place: list[Any], author: str, label_run: str | None) -> str:
    """The label run that somebody vouches for, of a person or of the source's steps; of another one as a correction.
    Raises CorrectionError."""
    dataset, episode_index = place
    facts = corrections.episode_facts(lake, dataset, episode_index)
    run = label_run or _active_run(lake, place)
    by_source = lake.rows(
        "SELECT 1 FROM episode_labels l JOIN label_runs r USING (label_run) WHERE l.dataset = ? AND "
        "l.episode_index = ? AND l.label_run = ? AND l.steps_from IS NOT NULL AND r.annotator = 'native'",
        [*place, run],
    )
    if run != human_run(dataset) and not by_source:
        corrections.save(
            lake,
            dataset,
            episode_index,
            corrections.stored_label(lake, dataset, episode_index, run),
            author=author,
            base_label_run=run,
            base_content_hash=facts["content_hash"],
            follows=corrections.newest_id(lake, dataset, episode_index),
            comment="vouched for as a reference",
        )
    return run


def _active_run(lake: Lake, episode_key: list[Any]) -> str:
    """The label that counts of an episode; a correction does from the moment it is saved. Raises CorrectionError."""
    dataset, episode_index = episode_key
    of_episode = "WHERE dataset = ? AND episode_index = ?"
    if lake.rows(
        f"SELECT 1 FROM current_corrections {of_episode} AND status = 'accepted'", episode_key
    ):
        return human_run(dataset)
    active = lake.column(f"SELECT label_run FROM active_runs {of_episode}", episode_key)
    if not active:
        raise CorrectionError(
            f"episode {episode_index} of {dataset} has no label to vouch for: build it or set its steps in the explorer"
        )
    return active[0]


def join_tasks(lake: Lake, dataset: str, first: str, second: str, *, author: str) -> str:
    """Say that two texts mean the same task; returns the text that stands for both, and for all
    joined to them before.

    Raises CorrectionError.
    """

    def groups(same_as: Mapping[str, str]) -> dict[str, str]:
        ends = same_as.get(first, first), same_as.get(second, second)
        if ends[0] == ends[1]:
            raise CorrectionError(f"{dataset}: {first!r} and {second!r} are one task already")
        members = {*ends, *(text for text, stands in same_as.items() if stands in ends)}
        return dict.fromkeys(members, min(members))

    return _say_same(lake, dataset, author, groups, first, second)[first]


def part_task(lake: Lake, dataset: str, text: str, *, author: str) -> None:
    """Say that a text that was joined to others is a task of its own again; the others stay
    together.

    Raises CorrectionError.
    """

    def groups(same_as: Mapping[str, str]) -> dict[str, str]:
        stands = same_as.get(text, text)
        other_texts = {t for t in (stands, *same_as) if same_as.get(t, t) == stands} - {text}
        if not other_texts:
            raise CorrectionError(f"{dataset}: {text!r} is joined to no other text")
        return dict.fromkeys(other_texts, min(other_texts)) | {text: text}

    _say_same(lake, dataset, author, groups, text)


def joined_chunks(lake: LakeConnection, dataset: str) -> set[int]:
    """The chunks whose samples the next build makes anew, because other texts are one task by now."""
    built = dict(
        lake.rows(
            "SELECT chunk, arg_max(inputs->>'joined_tasks', snapshot) FROM stage_runs "
            "WHERE stage = 'samples' AND dataset = ? GROUP BY 1",
            [dataset],
        )
    )
    present_stamps = joined_stamps(lake, dataset)
    return {chunk for chunk, stamp in built.items() if stamp != present_stamps.get(chunk)}


def _say_same(lake: Lake, dataset: str, author: str, groups: Any, *texts: str) -> dict[str, str]:
    """Save what `groups`, given what texts stand for now, makes of it: the text that stands for each."""
    _check_texts(lake, dataset, *texts)
    author = checked_text("author", author, 100)
    stands: dict[str, str] = {}

    def rows() -> list[dict[str, Any]]:
        present_groups = joined_tasks(lake, dataset)
        stands.update(groups(present_groups))
        changed = {
            text: same_as
            for text, same_as in sorted(stands.items())
            if present_groups.get(text, text) != same_as
        }
        common = {"dataset": dataset, "author": author}
        return [common | {"subject": text, "same_as": name} for text, name in changed.items()]

    say(lake, "joined_task", rows)
    return stands


def _check_texts(lake: Lake, dataset: str, *texts: str) -> None:
    """Raises CorrectionError: texts that the dataset does not have, or the same one twice."""
    if len(set(texts)) < len(texts):
        raise CorrectionError(
            f"{dataset}: both texts are {texts[0]!r}; runs of one text are of one task anyway"
        )
    known_texts = lake.column(
        "SELECT DISTINCT task FROM episode_facts WHERE dataset = ? AND task IS NOT NULL", [dataset]
    )
    if not known_texts:
        raise CorrectionError(
            f"the corpus has no dataset {dataset!r} with task texts; proccorpus status lists datasets"
        )
    for text in texts:
        if text not in known_texts:
            close = get_close_matches(text, known_texts, n=1, cutoff=0.0)
            raise CorrectionError(
                f"no run of {dataset} has the text {text!r}; the nearest is {close[0]!r}"
            )


# For people


def sentences(lake: LakeConnection) -> dict[str, str]:
    """Of each dataset with references, how many runs are labelled like them.

    Example: "47 runs are labelled like its 2 references (episodes 3, 7); 3 are like none of them".
    """
    if not may_have_references(lake):
        return {}
    reference_rows = lake.rows(
        "SELECT dataset, (SELECT count(*) FROM active_runs a JOIN label_runs USING (label_run) "
        "WHERE a.dataset = r.dataset AND annotator = ?), list(episode_index ORDER BY episode_index), "
        "(SELECT count(*) FROM findings f WHERE f.dataset = r.dataset AND reason = 'transfer_no_fit') "
        "FROM current_references r WHERE content_hash IS NOT NULL GROUP BY dataset ORDER BY 1",
        [STAGE],
    )
    return {dataset: _sentence(*facts) for dataset, *facts in reference_rows}


def _sentence(labelled: int, references: Sequence[int], no_fit: int) -> str:
    numbers = ", ".join(map(str, references[:MOST_NAMED])) + (
        ", ..." if len(references) > MOST_NAMED else ""
    )
    if len(references) > 1:
        reference_text = f"{len(references)} references (episodes {numbers})"
    else:
        reference_text = f"reference (episode {numbers})"
    if no_fit:
        no_fit_note = f"; {no_fit} {'is' if no_fit == 1 else 'are'} like none of them"
    else:
        no_fit_note = ""
    return f"{labelled} {'run is' if labelled == 1 else 'runs are'} labelled like its {reference_text}{no_fit_note}"


# Error of progress of the other runs of a task of which one was shown, and by motion alone: the lowest and highest of
# six of the seven hand-labelled sets on which both are measured (docs/truth.md); the seventh is of failing runs
ONE_SHOWN = (0.01, 0.05)
BY_MOTION = (0.02, 0.06)


def advice(lake: LakeConnection) -> Iterator[tuple[str, str]]:
    """(dataset, text): what to do about tasks of several runs that motion labelled and nobody has shown; then about
    usable runs that have no text.
    """
    unless_referenced = ""
    if may_have_references(lake):
        same = "r.dataset = m.dataset AND r.task = m.task"
        unless_referenced = f"AND NOT EXISTS (FROM current_references r WHERE {same})"
    task_counts = lake.rows(
        "WITH by_motion AS ("
        "  SELECT dataset, task, count(*) AS runs FROM active_runs JOIN label_runs USING (label_run) "
        "  JOIN episode_facts USING (dataset, episode_index) "
        "  WHERE annotator = 'motion' AND task IS NOT NULL GROUP BY ALL) "
        f"SELECT dataset, count(*) FROM by_motion m WHERE runs > 1 {unless_referenced} GROUP BY 1 ORDER BY 1"
    )
    for dataset, tasks in task_counts:
        yield dataset, _to_show(tasks)
    run_counts = lake.rows(
        "SELECT dataset, count(*) FILTER (task IS NULL) AS num, count(*) FROM episode_facts "
        f"{OF_USABLE} GROUP BY dataset HAVING num > 0 ORDER BY 1"
    )
    for dataset, num, runs in run_counts:
        yield (
            dataset,
            f"{num} of {runs} runs have no text: they are compared with no other run, and none is labelled like them; "
            f"if they do the same: proccorpus build --dataset {dataset} --task TEXT",
        )


def _to_show(tasks: int) -> str:
    of_each = "" if tasks == 1 else f" of each of its {tasks} tasks"
    new_error, old_error = (f"{low:g} to {high:g}" for low, high in (ONE_SHOWN, BY_MOTION))
    return (
        f"show one run{of_each}: about two minutes (proccorpus explore, or show suggestions says which). Progress of "
        f"the others is then {new_error} off on most hand-labelled sets, by motion alone {old_error} (docs/truth.md)"
    )


def newest_word(lake: Lake) -> tuple[str, datetime] | None:
    """Id and time of what people said last that references are made of; None: nobody said anything."""
    rows = lake.rows(
        "SELECT statement_id, created_at FROM statements "
        "WHERE kind IN ('correction', 'rejection', 'reference', 'joined_task') ORDER BY created_at DESC, 1 LIMIT 1"
    )
    return next(iter(rows), None)
