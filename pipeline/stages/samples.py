"""Question-answer samples of a chunk's labelled episodes: the ProcVQA and ProgressLM families."""

from collections.abc import Iterator
from typing import Any

from annotate.label_gate import GateCounts
from annotate.samples import CODE_VERSION, samples_stage
from annotate.samples.labelled_episode import LabelledEpisode
from annotate.samples.unanswerable import Stranger
from annotate.samples.wording import template_version
from pipeline.config import DatasetBuild
from pipeline.pictures import samples_figure
from pipeline.reading import rows_of_episode
from pipeline.stage import Output, Stage, StageContext
from warehouse.lake import Lake
from warehouse.lake.labels import active_labels

# Of the 64 of the hash of a picture, in which pictures of the same moment by two cameras differ at least if they show
# something else: real pairs of different views have 28 to 36, where 32 is chance
UNLIKE_BITS = 24


def run(context: StageContext) -> Output:
    build = context.build
    with context.lake.reading():
        episodes = list(labelled_episodes(context.lake, build, context.chunk))
        strangers = chunk_strangers(context.lake, build.name, context.chunk)
    samples = samples_stage(episodes, build.stages.samples, strangers)
    counts = samples["family"].value_counts().to_pylist()
    samples_of_family = {f"family {count['values']}": count["counts"] for count in counts}
    left_out = GateCounts(build.stages.samples.gate, [(e.confidence, e.named) for e in episodes]).numbers()
    return Output({"samples": samples}, numbers={"episodes": len(episodes)} | left_out | samples_of_family)


def chunk_strangers(lake: Lake, dataset: str, chunk: int) -> list[Stranger]:
    """The runs of other tasks beyond the chunk that its samples may show, by what is listed of them."""
    rows = lake.rows(
        "SELECT o.episode_index, o.split, f.task, f.cameras, f.num_rows, f.fps FROM other_tasks o "
        "JOIN episode_facts f USING (dataset, episode_index) WHERE o.dataset = ? AND o.chunk = ? ORDER BY 1",
        [dataset, chunk],
    )
    return [
        Stranger(episode_index, split, task, tuple(cameras), num_rows, fps)
        for episode_index, split, task, cameras, num_rows, fps in rows
    ]


def labelled_episodes(lake: Lake, build: DatasetBuild, chunk: int) -> Iterator[LabelledEpisode]:
    """The usable episodes of a chunk that have segments and progress, by their active labels."""
    here = [build.name, chunk]
    labels = active_labels(lake.con, build.name, chunk)
    picture_sizes = _picture_sizes(lake, build, chunk)
    reasons = _reasons(lake, build.name, chunk)
    unlike_cameras = _unlike_cameras(lake, build.name, chunk)
    table = lake.arrow(
        "SELECT episode_index, progress FROM active_progress WHERE dataset = ? AND chunk = ? "
        "ORDER BY episode_index, frame_index",
        here,
    )
    episode_of_row, progress = table["episode_index"].to_numpy(), table["progress"].to_numpy()

    for facts in _episode_facts(lake, build.name, chunk):
        episode_index = facts["episode_index"]
        label = labels.get(episode_index)
        if label is None:
            continue
        yield LabelledEpisode(
            dataset=build.name,
            episode_index=episode_index,
            chunk=chunk,
            split=facts["split"],
            label_run=label.label_run,
            cameras={camera: picture_sizes.get((episode_index, camera), (0, 0)) for camera in facts["cameras"]},
            fps=facts["fps"],
            task=facts["task"],
            segments=label.segments,
            progress=progress[rows_of_episode(episode_of_row, episode_index)],
            plan=tuple(facts["plan"] or ()),
            reasons=reasons.get((episode_index, label.label_run), {}),
            unlike_cameras=unlike_cameras.get(episode_index, {}),
            confidence=facts["confidence"],
            named=facts["named"] is not False,
        )


def _episode_facts(lake: Lake, dataset: str, chunk: int) -> list[dict[str, Any]]:
    """Usable episodes with their splits, and what the label that counts says of them."""
    return lake.dicts(
        "SELECT e.episode_index, e.fps, coalesce(e.task, l.task) AS task, e.cameras, s.split, l.plan, l.confidence, "
        "l.named FROM episodes e JOIN splits s USING (dataset, episode_index) "
        "LEFT JOIN active_runs a USING (dataset, episode_index) LEFT JOIN episode_labels l ON l.dataset = e.dataset "
        "AND l.episode_index = e.episode_index AND l.label_run = a.label_run "
        "WHERE e.dataset = ? AND e.chunk = ? AND e.status = 'ok' ORDER BY 1",
        [dataset, chunk],
    )


def _picture_sizes(lake: Lake, build: DatasetBuild, chunk: int) -> dict[tuple[int, str], tuple[int, int]]:
    """(width, height) in a shard of the pictures of each (episode, camera)."""
    rows = lake.rows(
        "SELECT episode_index, camera, width_px, height_px FROM keyframes WHERE dataset = ? AND chunk = ? "
        "AND frame_index = 0 AND purpose = 'coarse'",
        [build.name, chunk],
    )
    sizes = {}
    for episode_index, camera, width, height in rows:
        # Shards hold pictures at their own size, by which tokens are counted
        scale = min(1.0, build.stages.shards.picture_max_px / max(1, width, height))
        sizes[episode_index, camera] = (round(width * scale), round(height * scale))
    return sizes


def _unlike_cameras(lake: Lake, dataset: str, chunk: int) -> dict[int, dict[str, tuple[str, ...]]]:
    """Of each camera of an episode, the ones that show something else, not nearly the same from beside it."""
    rows = lake.rows(
        "SELECT episode_index, camera, list(other ORDER BY other) FROM "
        "(SELECT x.episode_index, x.camera, y.camera AS other, median(bit_count(xor(x.phash, y.phash))) AS distance "
        "FROM frames x JOIN frames y USING (dataset, chunk, episode_index, frame_index) WHERE dataset = ? "
        "AND chunk = ? AND frame_index % 10 = 0 AND x.camera <> y.camera GROUP BY ALL) "
        "WHERE distance >= ? GROUP BY ALL",
        [dataset, chunk, UNLIKE_BITS],
    )
    unlike: dict[int, dict[str, tuple[str, ...]]] = {}
    for episode_index, camera, others in rows:
        unlike.setdefault(episode_index, {})[camera] = tuple(others)
    return unlike


def _reasons(lake: Lake, dataset: str, chunk: int) -> dict[tuple[int, str], dict[int, str]]:
    """The annotator's words by frame, of each (episode, label run)."""
    reasons: dict[tuple[int, str], dict[int, str]] = {}
    for episode_index, label_run, frame, text in lake.rows(
        "SELECT episode_index, label_run, frame_index, text FROM reasoning WHERE dataset = ? AND chunk = ?",
        [dataset, chunk],
    ):
        reasons.setdefault((episode_index, label_run), {})[frame] = text
    return reasons


STAGE = Stage(
    name="samples",
    upstream=("episodes", "frames", "segments", "transfer", "corrections", "progress", "reasoning"),
    run=run,
    reads=("others",),
    # The size of pictures in shards is a part of a sample's tokens
    config=lambda build: (build.stages.samples, template_version(), str(build.stages.shards.picture_max_px)),
    code_version=CODE_VERSION,
    description="Question-answer samples of the ProcVQA and ProgressLM families.",
    picture=samples_figure,
)
