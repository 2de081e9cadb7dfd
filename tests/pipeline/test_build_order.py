"""In which order chunks are built, and on how many cores each decodes."""

import pytest
from threadpoolctl import threadpool_limits

from core.paths import ROOT, Workspace
from pipeline.build import Build, BuildListener, _largest_first, run_build
from pipeline.chunk import decoding_threads
from pipeline.config import source_build
from pipeline.plan import Step
from pipeline.stage import ChunkResult, StepFailure
from tests.kits.lake_kit import change
from warehouse.lake import Lake, digest


@pytest.mark.parametrize(
    ("chunks", "workers", "cores", "threads"),
    [
        (0, 0, 2, []),
        (1, 1, 2, [2]),
        (2, 2, 2, [1, 1]),
        (3, 2, 2, [1, 1, 2]),
        (5, 4, 16, [4, 4, 4, 4, 16]),
        (6, 4, 16, [4, 4, 4, 4, 8, 8]),
        (3, 2, 1, [1, 1, 1]),
    ],
)
def test_the_last_chunks_decode_with_the_cores_of_workers_that_have_ended(
    chunks, workers, cores, threads
):
    assert decoding_threads(chunks, workers, cores) == threads


def test_large_chunks_begin_first_and_equal_ones_in_order(made):
    lake = Lake(made.space, read_only=True)
    frames = dict(lake.rows("SELECT chunk, sum(num_rows) FROM episode_facts GROUP BY 1"))
    assert len(set(frames.values())) > 1
    chunks = [
        ("no such dataset", 7),
        *(("tiny", chunk) for chunk in sorted(frames, key=lambda c: (frames[c], c))),
    ]
    ordered = _largest_first(lake, chunks)
    assert ordered == [*sorted(chunks[1:], key=lambda chunk: -frames[chunk[1]]), chunks[0]]
    assert _largest_first(lake, chunks[1:2]) == chunks[1:2]


def test_a_chunk_that_failed_does_not_keep_its_dataset_from_being_listed_anew(own, monkeypatch):
    listed: list[str] = []

    def listed_anew(build: Build, step: Step) -> ChunkResult:
        listed.append(step.dataset)
        return ChunkResult([], None)

    monkeypatch.setattr(Build, "_listed", listed_anew)
    change(own.space, "UPDATE stage_runs SET input_hash = 'former' WHERE stage = 'episodes'")
    build = Build(own.space, 1, BuildListener(), None, accept_changes=False)
    build.look_at_sources([own.build], update=False)
    build.report.failed.append(StepFailure.of("tiny", 0, "frames", ValueError("damaged")))
    build.bring_up_to_date()
    assert listed == ["tiny"]
    build.report.failed.append(StepFailure.of("tiny", None, "episodes", ValueError("damaged")))
    build.bring_up_to_date()
    assert listed == ["tiny"], "what could not be listed is not listed twice in a build"


@pytest.mark.slow
def test_labels_do_not_depend_on_threads(tmp_path):
    """Of this set two threads of BLAS would add the numbers that pictures are compared by in another order than one."""
    digests = []
    for threads in (1, 2):
        space = Workspace(tmp_path / str(threads))
        with threadpool_limits(threads, "blas"):
            assert not run_build(
                space, [source_build(ROOT / "samples/sim_long", "long", None, None)], workers=1
            ).failed
        digests.append(digest(Lake(space, read_only=True)))
    assert digests[0] == digests[1]
