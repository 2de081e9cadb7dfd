"""Runs labelled like references, down to what counts: which chunks are built anew, and what is left when one goes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from annotate.embeddings.config import EmbeddingsConfig
from annotate.transfer.annotator import CODE_VERSION
from core.paths import Workspace
from pipeline.build import run_build
from pipeline.chunk import ChunkTask, run_chunk
from pipeline.config import DatasetBuild, resolve, source_build, with_annotator
from pipeline.plan import CURRENT, plan
from pipeline.reading import chunk_signals
from pipeline.stages import stage_specs
from pipeline.transferring import NO_PICTURES, shown_tasks
from tests.kits.lerobot_writer import write_v2
from tests.kits.made_corpus import Made, build_of
from tests.kits.step_forms import SPANS, V2_FORMS
from tests.kits.tiny_lerobot import make_dataset
from tests.pipeline.stages.test_corrections import STEPS, say
from warehouse.lake import Lake, corrections, digest, references

PLATE, DRAWER = "put the cube on the plate", "open the drawer"  # tasks of the even episodes, and of the odd ones
ACTIVE = "SELECT annotator, why FROM active_runs JOIN label_runs USING (label_run) WHERE episode_index = ?"
DOWN = ("progress", "samples", "shards")


def rebuilt(own: Made, build: DatasetBuild | None = None) -> list[tuple[str, int | None]]:
    report = run_build(own.space, [build or own.build], workers=1)
    assert not report.failed
    return [(r.run.stage, r.run.chunk) for r in report.done]


def stale(lake: Lake, own: Made) -> set[int]:
    fingerprint = own.build.source(own.space.sources).fingerprint()
    steps = plan(lake, {"tiny": stage_specs(own.build)}, {"tiny": fingerprint})
    return {s.chunk for s in steps if s.chunk is not None and s.status != CURRENT}


def active(lake: Lake, episode: int) -> tuple[str, str]:
    [row] = lake.rows(ACTIVE, [episode])
    return row


def test_the_other_runs_of_the_task_follow_in_every_chunk(own: Made, corpus: Lake):
    say(corpus)
    assert references.pending(corpus) == {"tiny": {0, 2}}
    assert stale(corpus, own) == {0, 1, 2}
    done = rebuilt(own)
    assert done == [
        *((stage, 0) for stage in ("transfer", *DOWN)),
        *((stage, 1) for stage in ("corrections", *DOWN)),
        *((stage, 2) for stage in ("transfer", *DOWN)),
    ]
    assert rebuilt(own) == []
    assert references.pending(corpus) == {}

    # Episode 0 has 24 frames, 4 has 26, the reference 30 with a boundary at 11
    segments = "SELECT episode_index, name, start_frame, end_frame, completed FROM active_segments"
    found = corpus.rows(f"{segments} WHERE episode_index IN (0, 4) ORDER BY episode_index, segment_index")
    ends = [end for _, _, _, end, _ in found]
    assert found == [
        (0, "Reach for the cube", 0, ends[0], True),
        (0, "Put it on the plate", ends[0], 24, True),
        (4, "Reach for the cube", 0, ends[2], True),
        (4, "Put it on the plate", ends[2], 26, True),
    ]
    assert ends[0] == pytest.approx(24 * 11 / 30, abs=2)
    assert ends[2] == pytest.approx(26 * 11 / 30, abs=2)
    assert active(corpus, 0) == active(corpus, 4) == ("transfer", "shown by reference: episode 2")
    assert active(corpus, 2) == ("human", "accepted correction")
    assert active(corpus, 1) == active(corpus, 3) == ("motion", "named by the configuration")
    ends = "SELECT episode_index, arg_max(progress, frame_index), count(*) FROM active_progress GROUP BY 1 ORDER BY 1"
    assert [row for row in corpus.rows(ends) if row[0] in (0, 4)] == [(0, 1.0, 24), (4, 1.0, 26)]

    # Provenance: which frame of which reference each looked-at frame is like
    assert corpus.rows(
        "SELECT episode_index, reference_episode, count(*), max(frame_index), max(reference_frame), bool_and(follows) "
        "FROM alignments GROUP BY ALL ORDER BY 1"
    ) == [(0, 2, 24, 23, 26, True), (4, 2, 26, 25, 29, True)]
    [(params, version)] = corpus.rows("SELECT params, code_version FROM label_runs WHERE annotator = 'transfer'")
    assert version == CODE_VERSION
    assert '"embeddings": null' in params

    # Motion's labels are compared with them and with the person's; words of the reference reach the samples
    compared = corpus.rows("SELECT DISTINCT episode_index FROM label_disagreement ORDER BY 1")
    assert [episode for (episode,) in compared] == [0, 2, 4]
    texts = corpus.column("SELECT question || answer FROM samples WHERE episode_index = 4")
    assert any("Put it on the plate" in text for text in texts)
    assert references.listed(corpus)[0]["followed_by"] == 2
    assert references.sentences(corpus) == {"tiny": "2 runs are labelled like its reference (episode 2)"}


def test_a_corrected_or_new_reference_concerns_the_chunks_with_runs_of_its_task(own: Made, corpus: Lake):
    say(corpus)
    rebuilt(own)
    say(corpus, [STEPS[0] | {"end_frame": 15}, STEPS[1] | {"start_frame": 15}])
    assert stale(corpus, own) == {0, 1, 2}, "its own chunk, and those of episodes 0 and 4"
    rebuilt(own)
    # Episode 1 of 18 frames and 3 of 12 are of the other task: chunk 2 has none of that
    drawer = [{"name": "Pull", "start_frame": 0, "end_frame": 12}]
    say(corpus, drawer, episode=3)
    assert stale(corpus, own) == {0, 1}
    assert rebuilt(own) == [
        *((stage, 0) for stage in ("transfer", *DOWN)),
        *((stage, 1) for stage in ("corrections", *DOWN)),
    ]
    assert active(corpus, 1) == ("transfer", "shown by reference: episode 3")
    assert active(corpus, 4) == ("transfer", "shown by reference: episode 2")


def test_what_follows_a_reference_goes_with_it(own: Made, corpus: Lake):
    before = digest(corpus)
    say(corpus)
    rebuilt(own)
    references.remove(corpus, "tiny", 2, author="bob")
    assert references.pending(corpus) == {"tiny": {0, 2}}
    assert rebuilt(own) == [(stage, chunk) for chunk in (0, 2) for stage in ("transfer", *DOWN)]
    assert corpus.rows("SELECT count(*) FROM alignments") == [(0,)]
    assert active(corpus, 0) == active(corpus, 4) == ("motion", "named by the configuration")
    assert active(corpus, 2) == ("human", "accepted correction"), "its own label counts as before"
    assert rebuilt(own) == []

    newest = corrections.newest_row(corpus, "tiny", 2)
    assert newest
    corrections.take_back(corpus, newest["correction_id"], author="ada", follows=newest["correction_id"])
    rebuilt(own)
    said = ("corrections", "reference_marks", "label_runs")
    assert {t: h for t, h in digest(corpus).items() if t not in said and before[t] != h} == {}


def test_a_label_that_was_carried_over_can_be_rejected(own: Made, corpus: Lake):
    say(corpus)
    rebuilt(own)
    run = corpus.rows("SELECT label_run FROM active_runs WHERE episode_index = 0")[0][0]
    corrections.reject_label(corpus, "tiny", 0, run, author="ada", follows=None)
    rebuilt(own)
    assert active(corpus, 0) == ("motion", "named by the configuration")
    assert references.sentences(corpus) == {"tiny": "1 run is labelled like its reference (episode 2)"}


@pytest.mark.parametrize("annotator", ["motion", "native"])
def test_named_annotators_follow_nobody(own: Made, corpus: Lake, annotator: str):
    say(corpus)
    build = with_annotator(own.build, annotator)
    done = rebuilt(own, build)
    assert "transfer" not in {stage for stage, _ in done}
    assert references.pending(corpus) == {}
    assert active(corpus, 0)[0] == annotator


# Steps of the source


@pytest.fixture
def mixed(tmp_path: Path) -> tuple[Workspace, DatasetBuild]:
    """Three runs of a task in chunks of one: the first brings its steps, which end two frames before the run."""
    source = write_v2(tmp_path / "source", (24, 24, 20))
    V2_FORMS["robocoin"](source)
    build = source_build(source, "mixed", None, None)
    stages = build.stages.model_copy(update={"embeddings": EmbeddingsConfig(when="never")})
    dataset = build.dataset.model_copy(update={"chunk_size": 1})
    return Workspace(tmp_path / "w"), build.model_copy(update={"dataset": dataset, "stages": stages})


def test_steps_of_the_source_show_the_runs_without_them_in_one_build(mixed: tuple[Workspace, DatasetBuild]):
    space, build = mixed
    order: list[tuple[str, int | None]] = []
    report = run_build(space, [build], workers=1, on_stage=lambda r: order.append((r.run.stage, r.run.chunk)))
    assert not report.failed
    # The chunk of the reference first, as far as it shows something, and nothing twice
    assert order[:3] == [("episodes", None), ("frames", 0), ("frames", 1)] or order[:2] == [
        ("episodes", None), ("frames", 0),
    ]  # fmt: skip
    assert len(order) == len(set(order))
    lake = Lake(space)
    assert active(lake, 0) == ("native", "named by the configuration")
    assert active(lake, 1) == active(lake, 2) == ("transfer", "shown by reference: episode 0")
    names = lake.column("SELECT name FROM active_segments WHERE episode_index = 1 AND step IS NOT NULL")
    assert names == [name for name, _, _ in SPANS]
    assert not run_build(space, [build], workers=1).done
    lake.con.close()


def test_the_annotator_transfer_puts_references_before_steps(mixed: tuple[Workspace, DatasetBuild]):
    space, build = mixed
    lake = Lake(space)
    run_build(space, [build], workers=1)
    # A person says what is done in the second run, and that the first one's own steps show nobody
    references.add(lake, "mixed", 1, author="ada")
    references.remove(lake, "mixed", 0, author="ada")
    run_build(space, [build], workers=1)
    assert active(lake, 0) == ("native", "named by the configuration")
    assert not run_build(space, [with_annotator(build, "transfer")], workers=1).failed
    assert active(lake, 0) == ("transfer", "shown by reference: episode 1")
    lake.con.close()


# What the annotator is given


def test_episodes_are_compared_by_what_an_encoder_saw_or_by_tiny_pictures(own: Made, corpus: Lake):
    say(corpus)
    [task] = shown_tasks(corpus, own.build, chunk_signals(corpus, "tiny", 0))
    assert [e.episode_index for e in task.episodes] == [0], "episode 1 is of another task"
    assert [reference.plan for reference in task.references] == [("Reach for the cube", "Put it on the plate")]
    compared = [*task.signals, *(reference.signals for reference in task.references)]
    assert [len(s) for s in compared] == [24, 30]
    every = list(range(30))  # five pictures a second are all of four
    assert [[list(frames) for frames, _ in s.pictures] for s in compared] == [[every[:24]], [every]]

    stages = own.build.stages.model_copy(update={"embeddings": EmbeddingsConfig(encoder="grey", hz=100)})
    build = own.build.model_copy(update={"stages": stages})
    rebuilt(own, build)
    [task] = shown_tasks(corpus, build, chunk_signals(corpus, "tiny", 0))
    compared = [*task.signals, *(reference.signals for reference in task.references)]
    assert [[len(frames) for frames, _ in s.pictures] for s in compared] == [[24], [30]]
    [(params,)] = corpus.rows("SELECT params FROM label_runs WHERE annotator = 'transfer'")
    assert '"encoder": "grey"' in params
    assert corpus.rows("SELECT count(*) FROM episode_labels WHERE list_contains(notes, ?)", [NO_PICTURES]) == [(0,)]

    # An episode that the encoder did not see is compared by the rest
    corpus.remove("test", "episode_index = 0", [], "embeddings")
    [task] = shown_tasks(corpus, build, chunk_signals(corpus, "tiny", 0))
    assert [s.pictures for s in task.signals] == [(None,)]
    assert [len(reference.signals.pictures) for reference in task.references] == [1]
    corpus.con.execute("UPDATE stage_runs SET input_hash = '' WHERE stage = 'transfer' AND chunk = 0")
    rebuilt(own, build)
    assert corpus.column("SELECT episode_index FROM episode_labels WHERE list_contains(notes, ?)", [NO_PICTURES]) == [0]


def test_a_correction_that_does_not_fit_any_more_shows_nothing(own: Made, corpus: Lake):
    say(corpus)
    rebuilt(own)
    corpus.con.execute("UPDATE corrections SET segments = replace(segments, '\"end_frame\": 30', '\"end_frame\": 29')")
    assert list(shown_tasks(corpus, own.build, chunk_signals(corpus, "tiny", 0))) == []


# The same in any order


@pytest.fixture(scope="module")
def corrected(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Six runs in chunks of two, built by one worker; then somebody has corrected episode 4."""
    folder = tmp_path_factory.mktemp("corrected")
    source, space = make_dataset(folder / "source", (24, 18, 30, 12, 26, 16)), Workspace(folder / "workspace")
    build = with_grey_embeddings(build_of(source))
    report = run_build(space, [build], workers=1)
    assert not report.failed
    lake = Lake(space)
    say(lake, [STEPS[0] | {"end_frame": 9}, STEPS[1] | {"start_frame": 9, "end_frame": 26}], episode=4)
    lake.con.close()
    return Made(space, build, report)


def with_grey_embeddings(build: DatasetBuild) -> DatasetBuild:
    stages = build.stages.model_copy(update={"embeddings": EmbeddingsConfig(encoder="grey", hz=100)})
    return build.model_copy(update={"stages": stages})


def digest_after(folder: Path, corrected: Made, build_it: Callable[[Workspace, DatasetBuild], None]) -> dict[str, str]:
    """Of a copy of it that `build_it` has built again."""
    own = corrected.copy(folder)
    build_it(own.space, with_grey_embeddings(own.build))
    lake = Lake(own.space)
    assert references.pending(lake) == {}
    hashes = digest(lake)
    assert lake.rows("SELECT count(DISTINCT episode_index) FROM embeddings")[0][0] == 6
    lake.con.close()
    return hashes


def test_workers_and_the_order_of_chunks_change_nothing(corrected: Made, tmp_path: Path):
    def chunk_by_chunk(*chunks: int) -> Callable[[Workspace, DatasetBuild], None]:
        """As workers that finish in this order would; the reference is in chunk 2."""

        def build_it(space: Workspace, build: DatasetBuild) -> None:
            lake = Lake(space)
            build = resolve(lake, build)
            fingerprint = build.source(space.sources).fingerprint()
            for only in (frozenset({"episodes", "frames", "embeddings"}), None):
                for chunk in chunks if only is None else (2,):
                    done = run_chunk(ChunkTask(str(space.root), build, fingerprint, chunk, 1, "", only))
                    assert not done.failed
            lake.con.close()

        return build_it

    def by_workers(num: int) -> Callable[[Workspace, DatasetBuild], None]:
        def build_it(space: Workspace, build: DatasetBuild) -> None:
            assert not run_build(space, [build], workers=num).failed

        return build_it

    first = digest_after(tmp_path / "a", corrected, by_workers(1))
    assert digest_after(tmp_path / "b", corrected, chunk_by_chunk(1, 0, 2)) == first
    assert digest_after(tmp_path / "c", corrected, chunk_by_chunk(2, 1, 0)) == first


def test_two_workers_make_what_one_makes(corrected: Made, tmp_path: Path):
    hashes = []
    for workers in (1, 2):

        def build_it(space: Workspace, build: DatasetBuild, num: int = workers) -> None:
            assert not run_build(space, [build], workers=num).failed

        hashes.append(digest_after(tmp_path / f"{workers}", corrected, build_it))
    assert hashes[0] == hashes[1]
