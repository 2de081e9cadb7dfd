"""Pictures are embedded the same way whatever else goes through the pass, and by however many threads."""

import numpy as np

from annotate.embeddings.config import EmbeddingsConfig
from annotate.embeddings.passing import EmbeddingPass
from ingest.media.picture import ArrayPicture
from tests.annotate.embeddings.test_encoders import scene

GREY = EmbeddingsConfig(encoder="grey")


def embedded(config: EmbeddingsConfig, counts: dict[tuple[int, str], int], threads: int = 1) -> dict:
    """What is seen of so many pictures of each episode and camera, all of them different."""
    with EmbeddingPass(config, threads) as into:
        for (episode, camera), count in counts.items():
            for k in range(count):
                into.keep(episode, camera, 3 * k, ArrayPicture(scene(1000 * episode + k + len(camera), 100)))
        return {key: into.take(*key) for key in counts}


def check_independence(config: EmbeddingsConfig) -> None:
    counts = {(0, "front"): 43, (0, "wrist"): 3, (1, "front"): 32, (2, "front"): 1}
    together = embedded(config, counts)
    for threads in (2, 4):
        for key, (frames, numbers) in embedded(config, counts, threads).items():
            np.testing.assert_array_equal(frames, together[key][0])
            np.testing.assert_array_equal(numbers, together[key][1])
    for key, count in reversed(counts.items()):
        ((frames, numbers),) = embedded(config, {key: count}).values()
        assert frames.tolist() == [3 * k for k in range(count)]
        assert numbers.dtype == np.float16
        np.testing.assert_array_equal(numbers, together[key][1])


def test_an_embedding_depends_on_its_episode_alone():
    check_independence(GREY)


def test_what_was_dropped_is_not_there_and_may_be_handed_over_again():
    with EmbeddingPass(GREY) as into:
        for k in range(10):
            into.keep(0, "front", k, ArrayPicture(scene(k)))
        into.drop(0, "front")
        assert not into.has(0, "front")
        into.keep(0, "front", 0, ArrayPicture(scene(1, 100)))
        frames, numbers = into.take(0, "front")
        assert not into.has(0, "front")
    assert (frames.tolist(), numbers.shape[0]) == ([0], 1)
    np.testing.assert_array_equal(numbers, embedded(GREY, {(0, ""): 2})[0, ""][1][1:])
