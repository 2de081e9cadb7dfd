"""Question-answer samples of a chunk's labelled episodes: the ProcVQA and ProgressLM families."""

from collections import Counter
from collections.abc import Iterator, Mapping

from annotate.samples import samples_stage
from annotate.samples.labelled_episode import LabelledEpisode
from core.domain.label import Episode
from core.domain.label_run import GateCounts
from core.files import queries_of
from pipeline.config import DatasetBuild
from pipeline.stage import Output, StageContext
from warehouse.lake.chunk_rows import ChunkRows
from warehouse.lake.connection import LakeConnection
from warehouse.lake.references import joined_tasks
from warehouse.lake.stored import episode_from_row, labels_of

# Of the 64 of the hash of a picture, in which pictures of the same moment by two cameras differ at least if they show
# something else: real pairs of different views have 28 to 36, where 32 is chance
UNLIKE_BITS = 24
[LABELLED_SQL] = queries_of(__file__)


def run(context: StageContext) -> Output:
    build = context.build
    same_as = joined_tasks(context.lake, build.name)
    episodes = list(labelled_episodes(context.rows, build, context.chunk, same_as))
    listed_episodes = other_task_episodes(context.rows, build.name, context.chunk, same_as)
    samples = samples_stage(episodes, build.stages.samples, listed_episodes)
    families = Counter(samples["family"].to_pylist())
    samples_of_family = {f"family {family}": number for family, number in families.items()}
    gate_numbers = GateCounts(
        build.stages.samples.gate, [(e.label.confidence, e.label.named) for e in episodes]
    ).numbers()
    return Output(
        {"samples": samples}, numbers={"episodes": len(episodes)} | gate_numbers | samples_of_family
    )


def other_task_episodes(
    rows: ChunkRows, dataset: str, chunk: int, same_as: Mapping[str, str]
) -> list[Episode]:
    """The runs of other tasks beyond the chunk that its samples may show, by what is listed of them.

    Whether their chunks are decoded already makes no difference: samples do not depend on the order of chunks.
    """
    if not rows.rows("SELECT 1 FROM other_tasks LIMIT 1"):
        return []
    others = rows.whole.dicts(
        "SELECT f.dataset, f.episode_index, f.chunk, f.fps, f.num_rows AS num_frames, f.task, f.success, o.split, "
        "f.cameras FROM other_tasks o JOIN episode_facts f USING (dataset, episode_index) "
        "WHERE o.dataset = ? AND o.chunk = ? ORDER BY episode_index",
        [dataset, chunk],
    )
    return [episode_from_row(row | {"same_as": same_as.get(row["task"])}) for row in others]


def labelled_episodes(
    lake: LakeConnection, build: DatasetBuild, chunk: int, same_as: Mapping[str, str]
) -> Iterator[LabelledEpisode]:
    """The usable episodes of a chunk that have segments and progress, by their active labels. `same_as`: the text that
    stands for the task, by each text that people joined to it.
    """
    con = lake.holding("FROM active_segments JOIN active_progress JOIN episode_labels")
    labels = labels_of(con, build.name, chunk, whole=True)
    max_px = build.stages.shards.picture_max_px
    for facts in lake.dicts(LABELLED_SQL, [build.name, chunk, UNLIKE_BITS]):
        episode = episode_from_row(facts | {"same_as": same_as.get(facts["task"])})
        label = labels.get(episode.episode_index)
        sizes = dict[str, tuple[int, int]](facts["sizes"] or ())
        if label is None:
            continue
        yield LabelledEpisode(
            episode=episode,
            label=label.with_task(episode.task),
            picture_sizes={
                camera: _size_in_shards(*sizes.get(camera, (0, 0)), max_px)
                for camera in episode.cameras
            },
            reasons=dict(facts["reasons"] or ()),
            unlike_cameras={
                camera: tuple(other_cameras) for camera, other_cameras in facts["unlike"] or ()
            },
        )


def _size_in_shards(width: int, height: int, max_px: int) -> tuple[int, int]:
    """Of a keyframe in a shard, which holds pictures at their own size: by it tokens are counted."""
    scale = min(1.0, max_px / max(1, width, height))
    return round(width * scale), round(height * scale)
