"""In which order chunks are built, and on how many cores each decodes."""

import pytest

from pipeline.build import _decoding_threads, _largest_first
from tests.kits.made_corpus import Made
from warehouse.lake import Lake


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
    chunks: int, workers: int, cores: int, threads: list[int]
):
    assert _decoding_threads(chunks, workers, cores) == threads


def test_large_chunks_begin_first_and_equal_ones_in_order(made: Made):
    lake = Lake(made.space, read_only=True)
    frames = dict(lake.rows("SELECT chunk, sum(num_rows) FROM episode_facts GROUP BY 1"))
    assert len(set(frames.values())) > 1
    chunks = [("no such dataset", 7), *(("tiny", chunk) for chunk in sorted(frames, key=lambda c: (frames[c], c)))]
    ordered = _largest_first(lake, chunks)
    assert ordered == [*sorted(chunks[1:], key=lambda chunk: -frames[chunk[1]]), chunks[0]]
    assert _largest_first(lake, chunks[1:2]) == chunks[1:2]
