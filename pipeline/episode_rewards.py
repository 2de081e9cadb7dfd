"""A model's rewards for the episodes of a corpus, kept in the lake: what RA-BC's export reads.

What is scored is known by model, settings, the episode's content, instruction and camera; it is not scored again,
whoever asks.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import batched, groupby
from typing import Any

from annotate.samples.procvqa import task_text
from core.domain.label import Episode
from core.errors import UserError
from core.paths import Workspace
from eval.reward.open import ScorerConfig, open_scorer
from eval.reward.scorer import UNSEEN, Reward, Scorer
from eval.reward.stream import Moment, Robot
from eval.reward.video import AT_ONCE, SCORE_FPS, RunClip
from eval.scored import EvalRun, add_predictions, drop_predictions
from ingest.episode import EpisodeData, EpisodeRecord, Picture
from ingest.reasons import DataError
from pipeline.config import built
from pipeline.reading import records_of
from warehouse.exports.options import Selection
from warehouse.exports.rabc import reward_keys, the_dataset
from warehouse.exports.selection import select
from warehouse.lake import Lake, content_key
from warehouse.lake.stored import usable_episode
from warehouse.measured import ChangedError, MeasuredSource

CODE_VERSION = "rewards-2"
BENCHMARK = "rewards"
COMMITTED_TOGETHER = 8  # episodes whose rewards land in the lake at a time


@dataclass(frozen=True)
class ScoredEpisodes:
    """`run` is the eval_run under which rewards are kept; of the episodes asked for, some were scored already.

    Of the moments that were scored now `failures` have no number, and `unsure` one that is not to be relied on.
    """

    run: str
    episodes: int
    scored_now: int
    moments: int
    failures: int
    unsure: int


def score_episodes(
    lake: Lake,
    scorer: Scorer,
    model: str,
    episodes: Sequence[Episode],
    score_fps: float = SCORE_FPS,
    on_episodes: Callable[[int, int], None] = lambda done, of: None,
    cameras: Sequence[str] = (),
) -> ScoredEpisodes:
    """Score what the lake has no rewards of, chunk by chunk, several episodes side by side, which land together.

    An episode's first camera is scored: the preferred one, as in training, unless `cameras` are all that the episodes
    are shown by. `model` is a name for people. Raises RewardError, VlmError, and ChangedError for an episode whose
    source holds another recording by now.
    """
    success = scorer.success and scorer.success.as_json()
    facts = {**scorer.settings, "score_fps": score_fps, "success": success}
    if cameras:
        facts["cameras"] = sorted(cameras)
    settings = json.dumps(facts, sort_keys=True)
    run = content_key(settings, CODE_VERSION)[:16]  # equal for equal model, settings and code
    known_by = "dataset, episode_index, content_hash, instruction, camera"
    sql = f"SELECT DISTINCT {known_by} FROM eval_predictions WHERE eval_run = ?"
    scored_keys = set(lake.rows(sql, [run]))
    # By content, instruction and camera: an episode of which one of them changed is scored anew
    todo = [e for e in episodes if scored_keys.isdisjoint(reward_keys(e))]
    num_scored = len(episodes) - len(todo)
    moments = failures = unsure = 0
    on_episodes(num_scored, len(episodes))
    for part in _groups(todo):
        predictions = _rewards(lake, scorer, part, score_fps)
        # What these episodes were before their videos or texts changed goes
        drop_predictions(
            lake, "rewards of other videos", run, part[0].dataset, [e.episode_index for e in part]
        )
        rewards = EvalRun(run, model, BENCHMARK, settings, CODE_VERSION, predictions=predictions)
        add_predictions(lake, f"rewards of {part[0].dataset}:{part[0].chunk}", rewards)
        num_scored = num_scored + len(part)
        moments = moments + len(predictions)
        failures += sum(p["prediction"] is None for p in predictions)
        unsure += sum(p["prediction"] is not None and p["raw"] == UNSEEN for p in predictions)
        on_episodes(num_scored, len(episodes))
    return ScoredEpisodes(run, len(episodes), len(todo), moments, failures, unsure)


def _groups(episodes: Sequence[Episode]) -> Iterator[tuple[Episode, ...]]:
    """Of one chunk each."""
    for _, chunk_episodes in groupby(episodes, key=lambda e: (e.dataset, e.chunk)):
        yield from batched(chunk_episodes, COMMITTED_TOGETHER)


def _rewards(
    lake: Lake, scorer: Scorer, episodes: Sequence[Episode], score_fps: float
) -> list[dict[str, Any]]:
    """A model's rewards for some episodes of a chunk, rows of eval_predictions; moments are scored together as they
    come."""
    predictions: list[dict[str, Any]] = []
    first = episodes[0]
    source = MeasuredSource(lake, built(lake, first.dataset).source(lake.workspace.sources))
    records = {
        r.episode_index: r
        for r in records_of(lake, first.dataset, [e.episode_index for e in episodes])
    }
    moments = (
        (e, m)
        for e in episodes
        for m in _moments(scorer, e, source, records[e.episode_index], score_fps)
    )
    for part in batched(moments, AT_ONCE):
        # One batch of moments of several episodes; those that broke off have no picture to score
        rewards = iter(scorer.score([m for _, m in part if isinstance(m, Moment)]))
        for e, m in part:
            if isinstance(m, Moment):
                frame_index, reward = m.frame_index, next(rewards)
            else:
                frame_index, reward = m[0], Reward(scorer.source, None, failure=m[1])
            row = {
                "dataset": e.dataset,
                "episode_index": e.episode_index,
                "frame_index": frame_index,
                "prediction": reward.progress,
                "done": reward.done,
                "raw": reward.failure or reward.unsure,
                "content_hash": e.content_hash,
                "instruction": task_text(e.task),
                "camera": e.cameras[0],
            }
            predictions.append(row)
    return predictions


Broken = tuple[int, str]  # the frame from which on an episode cannot be read, and why


def _moments(
    scorer: Scorer, e: Episode, source: MeasuredSource, record: EpisodeRecord, score_fps: float
) -> Iterator[Moment | Broken]:
    camera = e.cameras[0]
    stream = scorer.stream(
        task_text(e.task),
        e.fps,
        cameras=(camera,),
        score_fps=min(score_fps, e.fps),
        num_frames=e.num_frames,
    )
    try:
        for _, timestamp_s, picture in source.episode(record).frames(camera):
            # Pictures that the model will not see are counted but not converted
            moment = stream.append(
                {camera: picture.rgb()} if stream.is_wanted else None, timestamp_s
            )
            if moment is not None:
                yield moment
    except ChangedError:
        raise  # what would be scored is not what was measured
    except DataError as error:
        yield stream.appended, str(error)


def score_selection(
    lake: Lake,
    config: ScorerConfig,
    selection: Selection,
    score_fps: float | None = None,
    on_episodes: Callable[[int, int], None] = lambda done, of: None,
) -> ScoredEpisodes:
    """Score the episodes of an export to RA-BC that the lake has no rewards of. Raises RewardError and
    what open_scorer raises."""
    selected = select(lake, selection)
    the_dataset(selected)  # before hours are spent on what cannot be exported
    with open_scorer(config) as scorer:
        return score_episodes(
            lake,
            scorer,
            config.name,
            selected.episodes,
            score_fps or SCORE_FPS,
            on_episodes,
            selection.cameras,
        )


def episode_clip(
    space: Workspace, dataset: str, episode_index: int, cameras: Sequence[str] = ()
) -> tuple[RunClip, str]:
    """A usable episode of the corpus as a run to score, by its preferred camera or those named; and its task.

    Raises UserError: no such dataset, episode or camera, or one that cannot be used.
    """
    lake = Lake(space, read_only=True)
    build = built(lake, dataset)
    facts = usable_episode(lake.con, dataset, episode_index)
    has = facts.cameras
    if unknown := [camera for camera in cameras if camera not in has]:
        raise UserError(
            f"episode {episode_index} of {dataset} has no camera {unknown[0]!r}; it has {', '.join(has)}"
        )
    [record] = records_of(lake, dataset, [episode_index])
    episode = MeasuredSource(lake, build.source(space.sources)).episode(record)
    title = f"episode {episode_index} of {dataset}"
    of_episode = "WHERE dataset = ? AND episode_index = ? ORDER BY"
    curve = lake.column(
        f"SELECT progress FROM active_progress {of_episode} frame_index", [dataset, episode_index]
    )
    sql = f"SELECT start_frame, end_frame, name FROM active_segments {of_episode} start_frame"
    label = {"labelled": curve, "steps": lake.rows(sql, [dataset, episode_index])}
    clip = RunClip(
        tuple(cameras) or (has[0],),
        facts.fps,
        facts.num_frames or None,
        title,
        read=partial(_frames, episode),
        robot=partial(_robot, episode),
        **label,
    )
    return clip, task_text(facts.task)


def _frames(episode: EpisodeData, camera: str) -> Iterator[tuple[float, Picture]]:
    """A camera's frames in order, with their times in seconds. Raises VideoError, DataError."""
    for _, time_s, picture in episode.frames(camera):
        yield time_s, picture


def _robot(episode: EpisodeData, frame: int) -> Robot:
    """The state and the action at a frame, of those that the dataset has."""
    columns = {"state": episode.state, "action": episode.action}
    return {
        column: rows[frame]
        for column, rows in columns.items()
        if rows is not None and frame < len(rows)
    }
