"""Steps that people or models have put into LeRobot datasets, in the forms that tools write.

Every form is read into spans of frames, and the first one in `FORMS` that has any of an episode
counts: people's before models', whole labels before bare spans. The build and `proccorpus import`
both read by this module.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

from core.domain.label import EpisodeFrame
from core.names import unnamed_step
from ingest.episode import NativeStep
from ingest.formats.folders import (
    SPAN_FORMS,
    StatedSpan,
    checked_steps,
    is_step,
    object_of,
    span_objects,
    stated_spans,
    tells_times,
)
from ingest.formats.lerobot_episode import MODALITY, modality_of
from ingest.formats.lerobot_meta import (
    LerobotListing,
    columns_of,
    metadata_rows,
    task_texts,
    texts_by_index,
)
from ingest.formats.lerobot_rows import (
    Episodes,
    StoredEpisode,
    Times,
    cells_of,
    changing_episodes,
    episodes_named_otherwise,
    report_merged_tasks,
    report_renumbered_tasks,
    times_of,
)
from ingest.formats.side_files import parse_json, read_json
from ingest.formats.tables import finite, whole
from ingest.formats.writers import EXPORTED
from ingest.reasons import DataError

VISUALIZER_FILE = "meta/lerobot_annotations.json"
TASK_COLUMN = "task_index"
LANGUAGE_COLUMN = "language_persistent"
ANNOTATION_PREFIX = "annotation."
NOT_TEXTS = re.compile("valid|quality")  # GR00T: quality labels of episodes are no steps
NOT_INDICES = re.compile("bool|float")  # dtypes of measures and flags
SARM_HEADS = ("dense_", "", "sparse_")  # the columns without a prefix are those of older versions
SARM_WHOLE_TASK = "task"  # SARM's name for the only stage of a run that nobody divided
SAME_S = 0.25  # boundaries of two forms that are nearer than this are the same


class Stated(NamedTuple):
    """What one form says of an episode: steps, or the problem for which they cannot be used.

    `form` is the form, or which of its columns was read; `plan` and `as_far_as` are as in EpisodeRecord.
    """

    form: str
    steps: tuple[NativeStep, ...] = ()
    problem: str | None = None
    plan: tuple[str, ...] = ()
    as_far_as: EpisodeFrame | None = None


NO_STEPS = Stated("")


def native_steps(dataset: LerobotListing, episodes: Episodes) -> dict[int, Stated]:
    """The steps of each episode that has any, with findings about broken ones and about forms that differ."""
    by_form = [read_form(dataset, episodes, name) for name in FORMS]

    chosen: dict[int, Stated] = {}
    for episode in episodes:
        for stated_steps in filter(None, (of_form.get(episode) for of_form in by_form)):
            if stated_steps.problem is not None:
                dataset.warn("bad_steps", f"{stated_steps.form}: {stated_steps.problem}", episode)
            if not stated_steps.steps:
                continue
            # Where a form before it has steps, those are used
            used = chosen.setdefault(episode, stated_steps)
            if used is not stated_steps and (
                difference := _difference(used, stated_steps, dataset.rate)
            ):
                dataset.warn("steps_differ", f"{used.form} is used; {difference}", episode)
    return chosen


def read_form(dataset: LerobotListing, episodes: Episodes, name: str) -> dict[int, Stated]:
    """What one form (a name in FORMS) says of each episode that it speaks of.

    A form whose every span is a whole episode tells no times: such texts are no steps, and nothing
    is returned.
    """
    form_steps = FORMS[name](dataset, episodes)
    with_steps = {episode: s for episode, s in form_steps.items() if s.steps}
    times = (
        tells_times(s.steps, episodes[episode].num_frames) for episode, s in with_steps.items()
    )
    has_times = name == "segments" or any(times)
    broken = {episode: s for episode, s in form_steps.items() if s.problem is not None}
    if has_times:
        return broken | with_steps
    return broken


def _difference(used: Stated, unused: Stated, fps: float) -> str | None:
    """Where another form says something else of what is not idle or done, in words; None where both say the same."""
    # Spans that are idle or done have names, too, which other forms may repeat
    not_steps = {(n.name, n.start_frame) for n in used.steps if not _under_way(n)}
    ours = [n for n in used.steps if _under_way(n)]
    theirs = [n for n in unused.steps if _under_way(n) and (n.name, n.start_frame) not in not_steps]
    if len(ours) != len(theirs):
        return f"number of steps by {unused.form}: {len(theirs)}, not {len(ours)}"
    for a, b in zip(ours, theirs, strict=True):
        if a.name != b.name:
            return f"{unused.form} names {b.name!r} at frame {b.start_frame}, not {a.name!r}"
        if abs(a.start_frame - b.start_frame) > SAME_S * fps:
            return (
                f"{unused.form} lets {b.name!r} begin at frame {b.start_frame}, not {a.start_frame}"
            )
    return None


def _under_way(step: NativeStep) -> bool:
    return step.kind in (None, "step") and is_step(step.name)


# Spans as forms state them, to steps


def _stated(
    form: str,
    episodes: Episodes,
    spans_of: Callable[[int, StoredEpisode], Iterable[StatedSpan] | None],
) -> dict[int, Stated]:
    """The steps of each episode's spans, or what is wrong with them: `spans_of` raises ValueError."""
    steps_by_episode: dict[int, Stated] = {}
    for index, episode in episodes.items():
        try:
            spans = list(spans_of(index, episode) or ())
            # Those in which a step is under way; an empty name stays, to be found
            named_spans = [s for s in spans if is_step(s.name) or not s.name.strip()]
            if spans:
                steps_by_episode[index] = Stated(
                    form, checked_steps(named_spans, episode.num_frames)
                )
        except ValueError as e:
            steps_by_episode[index] = Stated(form, problem=str(e))
    return steps_by_episode


# A label as a whole: our own exports


def _segments(dataset: LerobotListing, episodes: Episodes) -> dict[int, Stated]:
    """`proccorpus_segments` of meta/episodes: attempts, completion, idle and done spans, the plan."""
    ours = {
        _exported_from(episode.meta, "proccorpus_episode_index"): index
        for index, episode in episodes.items()
    }
    _report_lost_segments(dataset, episodes)
    steps_by_episode = {}
    for index, episode in episodes.items():
        if not (rows := episode.meta.get("proccorpus_segments")):
            continue
        try:
            steps = tuple(_segment(row) for row in span_objects(rows, "proccorpus_segments"))
            # Exports of earlier versions have no plan, but the number of its steps
            plan = _plan(steps, episode.meta)
        except ValueError as e:
            steps_by_episode[index] = Stated("segments", problem=str(e))
            continue
        # The frame of another run that a failed one came as far as, where that run is in the export, too
        other_episode = ours.get(_exported_from(episode.meta, "proccorpus_as_far_as_episode"))
        frame = whole(episode.meta.get("proccorpus_as_far_as_frame"))
        if other_episode is None or frame is None or frame < 0:
            last_labelled = None
        else:
            last_labelled = EpisodeFrame(other_episode, frame)
        steps_by_episode[index] = Stated("segments", steps, None, plan, last_labelled)
    return steps_by_episode


def _report_lost_segments(dataset: LerobotListing, episodes: Episodes) -> None:
    """Say where an export of ours has lost its labels: LeRobot's tools that delete and split drop their columns."""
    is_ours = dataset.info["features"].keys() >= {*EXPORTED.paths}
    if is_ours and not any("proccorpus_segments" in episode.meta for episode in episodes.values()):
        detail = (
            f"{len(episodes)} episodes have the columns of an export of proccorpus, and meta/episodes lacks its column "
            "proccorpus_segments, which LeRobot's tools that delete and split leave out: attempts, completion and plan "
            "of each step are lost; names and times are read from the rows"
        )
        dataset.warn("steps_lost", detail)


def _segment(row: Mapping[str, Any]) -> NativeStep:
    """Raises ValueError for values of other types than a segment's."""
    [step] = checked_steps(
        [StatedSpan(row.get("name"), row.get("start_frame"), row.get("end_frame"))], None
    )
    kind = row.get("kind")
    completed = row.get("completed")
    if kind not in ("step", "idle", "done") or not isinstance(completed, bool):
        raise ValueError(f"{step.name} is of kind {kind!r}, completed: {completed!r}")
    # LeRobot's merge_datasets makes floats of a column with nulls; none is null or NaN, or in newer exports -1
    number = whole(row.get("step"))
    is_attempt = number is not None and number >= 0
    if (kind == "step") != is_attempt:
        raise ValueError(
            f"{step.name}, of kind {kind}, is an attempt at the planned step {row.get('step')!r}"
        )
    confidence = finite(row.get("confidence"))
    notes = row.get("notes")
    return replace(
        step,
        kind=kind,
        completed=completed,
        step=number if is_attempt else None,
        confidence=confidence if confidence is not None and 0 <= confidence <= 1 else None,
        notes=notes if isinstance(notes, str) else None,
    )


def _plan(steps: Sequence[NativeStep], meta: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the planned steps: as exported, else those of first attempts; one never attempted is unnamed."""
    attempts = {step.step: step.name for step in reversed(steps) if step.step is not None}
    tried = max(attempts, default=-1) + 1
    plan = meta.get("proccorpus_plan")
    if not isinstance(plan, list) or not all(isinstance(name, str) for name in plan):
        count = max(whole(meta.get("proccorpus_num_planned")) or 0, tried)
        plan = [attempts.get(number, unnamed_step(number)) for number in range(count)]
    if tried > len(plan):
        raise ValueError(f"an attempt at planned step {tried - 1} of {len(plan)}")
    return tuple(plan)


def _exported_from(meta: Mapping[str, Any], column: str) -> tuple[str, int | None]:
    """An episode of the corpus that an export was made from: its dataset and the index in a column."""
    return str(meta.get("proccorpus_dataset")), whole(meta.get(column))


# Spans in the metadata


def _action_config(dataset: LerobotListing, episodes: Episodes) -> dict[int, Stated]:
    """`action_config` of an episode's metadata: a list of spans, or RoboMIND's object with `steps`."""

    def spans_of(index: int, episode: StoredEpisode) -> Iterable[StatedSpan]:
        config = episode.meta.get("action_config")
        config = parse_json(config) if isinstance(config, str) else config
        # RoboMIND's converter writes null where nobody described the run
        stored = (config.get("steps") if isinstance(config, dict) else config) or []
        return stated_spans(SPAN_FORMS["action_config"], stored)

    return _stated("action_config", episodes, spans_of)


def _sarm(dataset: LerobotListing, episodes: Episodes) -> dict[int, Stated]:
    """SARM's lists in meta/episodes, dense stages before sparse ones. The end of a stage is its last frame."""

    def spans_of(index: int, episode: StoredEpisode) -> Iterable[StatedSpan] | None:
        # An episode that nobody annotated has none of the columns filled
        head = next((head for head in SARM_HEADS if episode.meta.get(f"{head}subtask_names")), None)
        stages = [] if head is None else _sarm_stages(episode, head, dataset.rate)
        if [span.name for span in stages] == [SARM_WHOLE_TASK]:
            return None
        return stages

    return _stated("sarm", episodes, spans_of)


def _sarm_stages(episode: StoredEpisode, head: str, fps: float) -> list[StatedSpan]:
    """Raises ValueError for lists that differ in length, and for what is no frame or time."""
    in_frames = episode.meta.get(f"{head}subtask_start_frames") is not None
    unit = "frames" if in_frames else "times"
    columns = [f"{head}subtask_{name}" for name in ("names", f"start_{unit}", f"end_{unit}")]
    stored = [value for name in columns if isinstance(value := episode.meta.get(name), list)]
    if len(stored) < len(columns) or len({*map(len, stored)}) > 1:
        raise ValueError(f"{', '.join(columns)} are not lists of one length")
    names, starts, ends = stored
    # The last frame of a stage is in it; a time is where the stage is over
    edge_times = Times(1 if in_frames else fps)
    edges = [
        (edge_times.frame(start), edge_times.frame(end) + in_frames)
        for start, end in zip(starts, ends, strict=True)
    ]
    stages = []
    for name, (start, end) in zip(names, edges, strict=True):
        # A stage that includes the next one's first frame ends before it
        later_starts = [later for later, _ in edges if later > start]
        limit = min(later_starts, default=end if episode.num_frames is None else episode.num_frames)
        # An optional stage that the run left out ends where it begins, or, in times, a frame before
        if end != start and (in_frames or end != start - 1):
            stages.append(StatedSpan(name, start, min(end, limit)))
    return stages


# Texts with times


def _visualizer(dataset: LerobotListing, episodes: Episodes) -> dict[int, Stated]:
    """What people drew in LeRobot's dataset visualizer: `atoms` of version 2, `subtasks` with ends of version 1."""
    drawn = _drawn(dataset)
    drawn_episodes = {index: episode for index, episode in episodes.items() if index in drawn}
    times = times_of(dataset, drawn_episodes)

    def spans_of(index: int, episode: StoredEpisode) -> Iterable[StatedSpan]:
        notes = drawn[index]
        frames = times[index]
        if isinstance(notes.get("atoms"), list):
            return _spans_of_texts(notes["atoms"], frames, episode)
        return [
            StatedSpan(
                span.get("label"),
                frames.frame(span.get("start")),
                frames.end(span.get("end"), episode.num_frames),
            )
            for span in span_objects(notes.get("subtasks") or [], "subtasks")
        ]

    return _stated("visualizer", drawn_episodes, spans_of)


def _drawn(dataset: LerobotListing) -> dict[int, dict[str, Any]]:
    """What the visualizer's file holds of each episode; nothing, with a finding, where it cannot be read."""
    if VISUALIZER_FILE not in dataset.source.files:
        return {}
    try:
        by_name = read_json(dataset.source, VISUALIZER_FILE)["episodes"]
        return {int(name): notes for name, notes in by_name.items() if isinstance(notes, dict)}
    except (DataError, TypeError, KeyError, AttributeError, ValueError) as e:
        detail = str(e) if isinstance(e, DataError) else "it has no object `episodes`"
        dataset.warn("bad_steps", f"{VISUALIZER_FILE}: {detail}", file=VISUALIZER_FILE)
        return {}


def _language(dataset: LerobotListing, episodes: Episodes) -> dict[int, Stated]:
    """`language_persistent`: rows of style `subtask` hold until the next one. All rows of an episode have the list."""
    if LANGUAGE_COLUMN not in columns_of(dataset):
        return {}
    cells = dict(cells_of(dataset, episodes, LANGUAGE_COLUMN, 1))
    text_episodes = {
        index: episodes[index] for index, cell in cells.items() if len(cell) and cell[0].is_valid
    }
    times = times_of(dataset, text_episodes)
    return _stated(
        "language",
        text_episodes,
        lambda i, episode: _spans_of_texts(cells[i][0].as_py(), times[i], episode),
    )


def _spans_of_texts(rows: Any, times: Times, episode: StoredEpisode) -> list[StatedSpan]:
    """Each text of style `subtask` as a span from its time to that of the next. Raises ValueError."""
    starts: dict[int, str] = {}
    for row in span_objects(rows, "language rows"):
        if row.get("style") != "subtask":
            continue
        # A text of several lines, or none at all, ends the one before it
        name = row.get("content") or ""
        frame = times.frame(row.get("timestamp"))
        if starts.setdefault(frame, name) != name:
            raise ValueError(f"{starts[frame]!r} and {name!r} both begin at frame {frame}")
    if starts and episode.num_frames is None:
        raise ValueError("nothing says how long the episode is")
    frames = sorted(starts)
    ends = [*frames[1:], episode.num_frames]
    return [
        StatedSpan(starts[frame], frame, end)
        for frame, end in zip(frames, ends, strict=False)
        if is_step(starts[frame])
    ]


# An index, or several, in each row


def _with_texts(
    dataset: LerobotListing, episodes: Episodes, column: str, uri: str
) -> dict[int, Stated]:
    """Indices with a file of their texts. RoboCOIN has slots of them, for all that is done at a time, some `null`."""
    if column not in columns_of(dataset):
        return {}
    if uri in dataset.source.files:
        texts = texts_by_index(metadata_rows(dataset, uri), "subtask")
        return _of_indices(dataset, episodes, column, texts, uri)
    if count := changing_episodes(dataset, episodes, column):
        detail = (
            f"{column} numbers the steps of {count} episodes, and {uri}, which has their texts, is not there: "
            "LeRobot's tools that delete, split and merge leave it out"
        )
        dataset.warn("steps_lost", detail, file=uri)
    return {}


def _annotation(dataset: LerobotListing, episodes: Episodes) -> dict[int, Stated]:
    """The column `annotation.*` of GR00T that divides episodes most finely; its indices are those of the tasks."""
    dataset.read_object(MODALITY)  # a finding where it cannot be read
    columns = sorted(annotated_columns(dataset) & columns_of(dataset))
    # A column that is the same in all rows of every episode is another text of the task
    changing = [column for column in columns if changing_episodes(dataset, episodes, column)]
    texts = task_texts(dataset) if changing else {}
    by_column = {
        column: _of_indices(dataset, episodes, column, texts, "the tasks") for column in changing
    }
    finest = max(changing, key=lambda column: _count_changes(by_column[column]), default=None)
    if finest is None or report_renumbered_tasks(dataset, episodes, finest):
        return {}
    column_steps = by_column.pop(finest)
    for column, of_column in by_column.items():
        _report_broken(dataset, column, of_column)
    constant = sorted({*columns}.difference(changing))
    doubtful = episodes_named_otherwise(dataset, episodes, constant, finest)
    return {
        index: of_episode for index, of_episode in column_steps.items() if index not in doubtful
    }


def _task_index(dataset: LerobotListing, episodes: Episodes) -> dict[int, Stated]:
    """LeRobot's recorder lets each frame have a task of its own: where it changes within an episode, it names steps."""
    report_merged_tasks(dataset, episodes)
    changing = {
        index: episode for index, episode in episodes.items() if len(episode.task_indices) > 1
    }
    if not changing:
        return {}
    return _of_indices(dataset, changing, TASK_COLUMN, task_texts(dataset), "the tasks")


def _count_changes(steps_by_episode: Mapping[int, Stated]) -> int:
    return sum(max(0, len(of_episode.steps) - 1) for of_episode in steps_by_episode.values())


def _report_broken(
    dataset: LerobotListing, column: str, steps_by_episode: Mapping[int, Stated]
) -> None:
    """Say what is wrong with the steps of a column beside the one that is used."""
    problems = {
        index: of_episode.problem
        for index, of_episode in steps_by_episode.items()
        if of_episode.problem
    }
    if problems:
        first = min(problems)
        detail = (
            f"{column}: in {len(problems)} of {len(steps_by_episode)} episodes, first in {first}: "
            f"{problems[first]}"
        )
        dataset.warn("bad_steps", detail)


def annotated_columns(dataset: LerobotListing) -> set[str]:
    """Columns that may say what is done: those named annotation.*, or as meta/modality.json names them."""
    column_by_name = {
        name: name for name in dataset.info["features"] if name.startswith(ANNOTATION_PREFIX)
    }
    for name, entry in object_of(modality_of(dataset.source).get("annotation")).items():
        original = object_of(entry).get("original_key")
        if isinstance(original, str):
            column_by_name[name] = original
        else:
            column_by_name[name] = f"{ANNOTATION_PREFIX}{name}"
    features = dataset.info["features"]
    dtypes = {
        column: str(object_of(features.get(column)).get("dtype"))
        for column in column_by_name.values()
    }
    return {
        c
        for name, c in column_by_name.items()
        if not NOT_TEXTS.search(name) and not NOT_INDICES.match(dtypes[c])
    }


def _of_indices(
    dataset: LerobotListing,
    episodes: Episodes,
    column: str,
    texts: Mapping[int, str],
    location: str,
) -> dict[int, Stated]:
    """The runs of rows with the same indices (or texts) in a column; null and negative ones stand for no step."""
    cells = dict(cells_of(dataset, episodes, column))

    def spans_of(index: int, episode: StoredEpisode) -> Iterator[StatedSpan]:
        start = 0
        for value, group in groupby(cells[index].to_pylist()):
            end = start + sum(1 for _ in group)
            if name := "; ".join(dict.fromkeys(_names(value, texts, location))):
                yield StatedSpan(name, start, end)
            start = end

    return _stated(column, {index: episodes[index] for index in cells}, spans_of)


def _names(value: Any, texts: Mapping[int, str], location: str) -> Iterator[str]:
    """The steps that one cell names: a text, an index, or a list of them. Raises ValueError for an index without."""
    for entry in value if isinstance(value, list) else [value]:
        index = whole(entry)
        if entry is None or (index is not None and index < 0):
            continue
        indexed_text = None if index is None else texts.get(index)
        name = entry if isinstance(entry, str) else indexed_text
        if name is None:
            raise ValueError(f"{location} has no text of {str(entry)[:40]}")
        if is_step(name):
            yield name.strip()


# In the order in which they count: what people drew by hand for this dataset, whole labels, people's spans, and last
# those that tools and models fill, too
FORMS: Mapping[str, Callable[[LerobotListing, Episodes], dict[int, Stated]]] = {
    "visualizer": _visualizer,
    "segments": _segments,
    "action_config": _action_config,
    # RoboCOIN's
    "subtask_annotation": partial(
        _with_texts, column="subtask_annotation", uri="annotations/subtask_annotations.jsonl"
    ),
    "subtask_index": partial(_with_texts, column="subtask_index", uri="meta/subtasks.parquet"),
    "annotation": _annotation,
    "task_index": _task_index,
    "language": _language,
    "sarm": _sarm,
}
