"""A model adapted to one labelled or corrected episode of the lake. Imports torch."""

from collections.abc import Callable
from itertools import chain
from tempfile import TemporaryFile

from annotate.config import SamplesConfig
from annotate.samples import procvqa
from core.errors import UserError
from pipeline.config import DatasetBuild, built
from pipeline.picture_cache import PictureStore
from pipeline.reading import records_of
from pipeline.stages.samples import labelled_episodes
from pipeline.stages.shards import PictureDecoder, picture_key
from training.recipe import Recipe
from training.runs import Point, TrainingRun
from training.train import adapt
from warehouse.lake import Lake
from warehouse.lake.episodes import usable_episode
from warehouse.lake.stored import coarse_keyframes
from warehouse.measured import MeasuredSource
from warehouse.shards.shard import Sample

FAMILY = procvqa.PROGRESS


def adapt_to_episode(
    lake: Lake,
    dataset: str,
    episode_index: int,
    recipe: Recipe,
    on_step: Callable[[Point], None],
    *,
    count: int,
    seed: int = 0,
    resume: bool = False,
) -> tuple[TrainingRun, int]:
    """An adapter, or another laptop model, and the number of samples that it learned from; see episode_samples."""
    drawn = episode_samples(lake, dataset, episode_index, count, seed)
    return adapt(lake, drawn, f"{dataset}-{episode_index:06d}", recipe, on_step, resume), len(drawn)


def episode_samples(
    lake: Lake, dataset: str, episode_index: int, count: int, seed: int = 0
) -> list[Sample]:
    """Up to `count` moments of an episode with its progress by the active label, all states in their share.

    Seeded by dataset, episode and `seed`. Raises UserError where the episode is not there or has no label.
    """
    build = built(lake, dataset)
    chunk = usable_episode(lake.con, dataset, episode_index).chunk
    matches = (
        e for e in labelled_episodes(lake, build, chunk) if e.episode.episode_index == episode_index
    )
    episode = next(matches, None)
    if episode is None:
        raise UserError(f"episode {episode_index} of {dataset} has no label: build {dataset} first")

    # The stage's own sampler, asked for progress alone
    config = SamplesConfig(
        progress_per_episode=count, segmentation_per_episode=0, actions_per_episode=0, seed=seed
    )
    samples = [sample for sample in procvqa.samples(episode, config) if sample["family"] == FAMILY]
    return _with_pictures(lake, build, episode_index, samples)


def _with_pictures(lake: Lake, build: DatasetBuild, episode: int, rows: list[dict]) -> list[Sample]:
    """Raises UserError where a picture cannot be had any more."""
    [record] = records_of(lake, build.name, [episode])
    # Moments share pictures: each is decoded once
    keys_of_rows = [[picture_key(picture) for picture in row["pictures"]] for row in rows]
    picture_keys = dict.fromkeys(chain.from_iterable(keys_of_rows))
    with TemporaryFile() as file:
        pictures = PictureStore(file)
        source = MeasuredSource(lake, build.source(lake.workspace.sources))
        keyframes = coarse_keyframes(lake, build.name, {episode})
        findings = PictureDecoder(lake, build, source, record, pictures, keyframes).decode(
            picture_keys
        )
        # One picture missing is an error here: the caller asked for this very episode
        if findings:
            raise UserError(f"episode {episode} of {build.name}: {findings[0].detail}")
        pairs = zip(rows, keys_of_rows, strict=True)
        return [Sample(row, tuple(map(pictures.get, keys))) for row, keys in pairs]
