"""Runs labelled like references, down to what counts: which chunks are built anew, and what is left when one goes."""

from collections.abc import Callable
from operator import attrgetter
from pathlib import Path

import pytest

from annotate.config import EmbeddingsConfig
from core.paths import Workspace
from pipeline.build import run_build
from pipeline.chunk import run_chunk
from pipeline.config import DatasetBuild, resolve
from pipeline.reading import chunk_signals
from pipeline.stage import ChunkTask
from pipeline.stages.transfer import NO_PICTURES, shown_tasks
from tests.kits.lake_kit import STEPS, opened, restate, say
from tests.kits.made_corpus import Made, build_of, built, with_stages
from tests.kits.tiny_lerobot import make_dataset
from warehouse.lake import Lake, corrections, digest, references

pytestmark = pytest.mark.slow

ACTIVE = "SELECT annotator, why FROM active_runs JOIN label_runs USING (label_run) WHERE episode_index = ?"


def active(lake: Lake, episode: int) -> tuple[str, str]:
    [row] = lake.rows(ACTIVE, [episode])
    return row


@pytest.fixture(scope="module")
def built_with_it(made: Made, tmp_path_factory) -> Made:
    """A corpus in which somebody has corrected episode 2, and the others of its task follow it; not
    for changing."""
    shown = made.copy(tmp_path_factory.mktemp("shown"))
    with opened(shown.space) as lake:
        say(lake)
    shown.rebuild()
    return shown


@pytest.fixture
def following(built_with_it: Made, tmp_path) -> Made:
    return built_with_it.copy(tmp_path)


def test_a_label_that_was_carried_over_can_be_rejected(following):
    with opened(following.space) as lake:
        run = lake.rows("SELECT label_run FROM active_runs WHERE episode_index = 0")[0][0]
        corrections.reject_label(lake, "tiny", 0, run, author="ada", follows=None)
        following.rebuild()
        assert active(lake, 0) == ("motion", "named by the configuration")
        assert references.sentences(lake) == {
            "tiny": "1 run is labelled like its reference (episode 2)"
        }


def test_episodes_are_compared_by_what_an_encoder_saw_or_by_tiny_pictures(own, corpus):
    say(corpus)
    [task] = shown_tasks(corpus, own.build, chunk_signals(corpus, "tiny", 0))
    assert [e.episode_index for e in task.episodes] == [0], "episode 1 is of another task"
    assert [label.plan for _, label in task.references] == [
        ("Reach for the cube", "Put it on the plate")
    ]
    compared = [*task.signals, *(signals for signals, _ in task.references)]
    assert [len(s) for s in compared] == [24, 30]
    all_frames = list(range(30))  # five pictures a second are all of four
    first_frames = [list(frames) for ((frames, _),) in map(attrgetter("pictures"), compared)]
    assert first_frames == [all_frames[:24], all_frames]

    build = with_grey_embeddings(own.build)
    own.rebuild(build)
    [task] = shown_tasks(corpus, build, chunk_signals(corpus, "tiny", 0))
    compared = [*task.signals, *(signals for signals, _ in task.references)]
    lengths = [len(frames) for ((frames, _),) in map(attrgetter("pictures"), compared)]
    assert lengths == [24, 30]
    [(params,)] = corpus.rows("SELECT params FROM label_runs WHERE annotator = 'transfer'")
    assert '"encoder": "grey"' in params
    assert corpus.rows(
        "SELECT count(*) FROM episode_labels WHERE list_contains(notes, ?)", [NO_PICTURES]
    ) == [(0,)]

    # An episode that the encoder did not see is compared by the rest
    corpus.remove("test", "episode_index = 0", [], "embeddings")
    [task] = shown_tasks(corpus, build, chunk_signals(corpus, "tiny", 0))
    assert [s.pictures for s in task.signals] == [(None,)]
    assert [len(signals.pictures) for signals, _ in task.references] == [1]
    corpus.con.execute(
        "UPDATE stage_runs SET input_hash = '' WHERE stage = 'transfer' AND chunk = 0"
    )
    own.rebuild(build)
    assert corpus.column(
        "SELECT episode_index FROM episode_labels WHERE list_contains(notes, ?)", [NO_PICTURES]
    ) == [0]


def test_a_correction_that_does_not_fit_any_more_shows_nothing(following):
    with opened(following.space) as lake:
        assert len(list(shown_tasks(lake, following.build, chunk_signals(lake, "tiny", 0)))) == 1
        restate(
            lake, """UPDATE {} SET value = replace(value, 'end_frame\\": 30', 'end_frame\\": 29')"""
        )
        assert list(shown_tasks(lake, following.build, chunk_signals(lake, "tiny", 0))) == []


@pytest.fixture(scope="module")
def corrected(tmp_path_factory) -> Made:
    """Six runs in chunks of two, built by one worker; then somebody has corrected episode 4."""
    folder = tmp_path_factory.mktemp("corrected")
    source = make_dataset(folder / "source", (24, 18, 30, 12, 26, 16))
    built_corpus = built(with_grey_embeddings(build_of(source)), Workspace(folder / "workspace"))
    with opened(built_corpus.space) as lake:
        say(
            lake,
            [STEPS[0] | {"end_frame": 9}, STEPS[1] | {"start_frame": 9, "end_frame": 26}],
            episode=4,
        )
    return built_corpus


def with_grey_embeddings(build: DatasetBuild) -> DatasetBuild:
    return with_stages(build, embeddings=EmbeddingsConfig(encoder="grey", hz=100))


def digest_after(
    folder: Path, corrected: Made, build_it: Callable[[Workspace, DatasetBuild], None]
) -> dict[str, str]:
    """Of a copy of it that `build_it` has built again."""
    own_copy = corrected.copy(folder)
    build_it(own_copy.space, with_grey_embeddings(own_copy.build))
    lake = Lake(own_copy.space)
    assert references.pending(lake) == {}
    hashes = digest(lake)
    assert lake.rows("SELECT count(DISTINCT episode_index) FROM embeddings")[0][0] == 6
    lake.con.close()
    return hashes


def test_workers_and_the_order_of_chunks_change_nothing(corrected, tmp_path):
    def chunk_by_chunk(*chunks: int) -> Callable[[Workspace, DatasetBuild], None]:
        """As workers that finish in this order would; the reference is in chunk 2."""

        def build_it(space: Workspace, build: DatasetBuild) -> None:
            lake = Lake(space)
            build = resolve(lake, build)
            fingerprint = build.source(space.sources).fingerprint()
            for only in (frozenset({"episodes", "frames", "embeddings"}), None):
                for chunk in chunks if only is None else (2,):
                    chunk_result = run_chunk(
                        ChunkTask(str(space.root), build, fingerprint, chunk, 1, "", only)
                    )
                    assert not chunk_result.failed
            lake.con.close()

        return build_it

    def by_two_workers(space: Workspace, build: DatasetBuild) -> None:
        assert not run_build(space, [build], workers=2).failed

    last_first = digest_after(tmp_path / "a", corrected, chunk_by_chunk(2, 1, 0))
    assert digest_after(tmp_path / "b", corrected, by_two_workers) == last_first
