"""Near-copies: episodes of a held-out split that show what an episode of training shows.

Candidates are found by the perceptual hashes of the preferred camera. Different runs of one task share scene, camera
and often most of their motion: their pictures tell them from copies. docs/releases.md has the numbers behind the
thresholds.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from warehouse.lake.lake import Lake

USABLE = "usable_episodes"  # temporary: id, dataset, episode_index, split, camera, num_frames of those to look at
MIN_HASHES = 8  # distinct hashes that an episode must have to be recognised by them
MAX_EPISODES = 50  # a hash that more episodes have is background: it says nothing about any of them
MIN_SHARED = 0.3  # of the distinct hashes of the episode that has fewer
MAX_PARTNERS = 5  # episodes of training that a held-out one is compared with frame by frame: those that share most
MIN_OVERLAP = 0.5  # of the shorter episode
MAX_BITS = 1.5  # mean Hamming distance of frames laid side by side
MIN_CORRELATION = 0.8  # of their visual change
GRID = 64  # cells a side that pictures are compared by
LARGEST = 20  # which of the differences of all cells, from the largest on, is compared with their mean
MIN_MEAN = 0.1  # of 255: the pictures of exact copies differ nowhere
MAX_PEAK = 17.0  # where the 20th largest difference of 4,096 cells over the mean is larger, objects stand elsewhere


@dataclass(frozen=True)
class NearCopy:
    """Frame k of the held-out episode shows frame k + `shift` of the one in training."""

    dataset: str
    episode_index: int
    split: str
    of_dataset: str
    of_episode: int
    shift: int
    bits: float  # mean Hamming distance of their hashes
    shared: float  # of the hashes

    def __str__(self) -> str:
        shift = f", shifted by {abs(self.shift)} frames" if self.shift else ""
        return (
            f"{self.dataset} episode {self.episode_index} ({self.split}) shows the pictures of {self.of_dataset} "
            f"episode {self.of_episode} (train){shift}"
        )


# First occurrences of each distinct hash: a picture that stands still counts once
_HASHES = f"""
CREATE OR REPLACE TEMP TABLE copy_hashes AS
SELECT u.id, f.phash, min(f.frame_index)::INTEGER AS first_frame
FROM frames f JOIN {USABLE} u ON u.dataset = f.dataset AND u.episode_index = f.episode_index AND u.camera = f.camera
WHERE f.phash IS NOT NULL GROUP BY u.id, f.phash"""

_PARTNERS = f"""
CREATE OR REPLACE TEMP TABLE copy_partners AS
WITH counted AS (
  SELECT id, count(*) AS hashes, u.split = 'train' AS trained FROM copy_hashes JOIN {USABLE} u USING (id)
  GROUP BY ALL HAVING hashes >= {MIN_HASHES}),
rare AS (SELECT phash FROM copy_hashes GROUP BY 1 HAVING count(*) BETWEEN 2 AND {MAX_EPISODES}),
rare_hashes AS (
  SELECT h.*, c.hashes, c.trained FROM copy_hashes h SEMI JOIN rare USING (phash) JOIN counted c USING (id)),
pairs AS (
  SELECT a.id AS held_id, b.id AS train_id, count(*) / least(any_value(a.hashes), any_value(b.hashes)) AS shared,
         mode(b.first_frame - a.first_frame) AS shift
  FROM rare_hashes a JOIN rare_hashes b USING (phash) WHERE NOT a.trained AND b.trained
  GROUP BY a.id, b.id HAVING shared >= {MIN_SHARED})
SELECT a.dataset, a.episode_index, a.split, b.dataset AS of_dataset, b.episode_index AS of_episode, p.*,
       least(a.num_frames, b.num_frames) AS frames
FROM pairs p JOIN {USABLE} a ON a.id = p.held_id JOIN {USABLE} b ON b.id = p.train_id
QUALIFY row_number() OVER (PARTITION BY p.held_id ORDER BY shared DESC, of_dataset, of_episode) <= {MAX_PARTNERS}"""

_FRAMES = f"""
CREATE OR REPLACE TEMP TABLE copy_frames AS
SELECT u.id, f.frame_index, f.phash, f.visual_change
FROM frames f JOIN {USABLE} u ON u.dataset = f.dataset AND u.episode_index = f.episode_index AND u.camera = f.camera
WHERE u.id IN (SELECT held_id FROM copy_partners UNION SELECT train_id FROM copy_partners)"""

# The first frame's change is 0 by definition, so it does not count for the correlation
_ALIGNED = f"""
SELECT p.dataset, p.episode_index, p.split, p.of_dataset, p.of_episode, p.shift,
       avg(bit_count(xor(f.phash, g.phash))) AS bits, p.shared
FROM copy_partners p JOIN copy_frames f ON f.id = p.held_id
JOIN copy_frames g ON g.id = p.train_id AND g.frame_index = f.frame_index + p.shift
GROUP BY ALL
HAVING count(*) >= {MIN_OVERLAP} * any_value(p.frames) AND bits <= {MAX_BITS}
   AND coalesce(corr(f.visual_change, g.visual_change) FILTER (f.frame_index > 0 AND g.frame_index > 0), 1)
       >= {MIN_CORRELATION}
ORDER BY ALL"""


def near_copies(lake: Lake) -> list[NearCopy]:
    """Held-out episodes of the table USABLE whose pictures stand in training: exact, encoded anew, cut or shifted.

    Joins on hashes that few episodes have, and compares each held-out episode with a handful of others: the work grows
    with the frames, not with their square. Copies at another frame rate, mirrored or cropped are not found.
    """
    lake.con.execute(_HASHES)
    lake.con.execute(_PARTNERS)
    lake.con.execute("DROP TABLE copy_hashes")
    candidates: list[NearCopy] = []
    if lake.rows("SELECT count(*) FROM copy_partners")[0][0]:
        lake.con.execute(_FRAMES)
        candidates = [NearCopy(*row) for row in lake.rows(_ALIGNED)]
        lake.con.execute("DROP TABLE copy_frames")
    lake.con.execute("DROP TABLE copy_partners")
    return [candidate for candidate in candidates if not _are_different_runs(lake, candidate)]


def _are_different_runs(lake: Lake, n: NearCopy) -> bool:
    """Do keyframes of the same moment differ by much in a few places, as where an object stands elsewhere?

    Coding and light change a picture a little everywhere. Without keyframes of one moment the two count as copies.
    """
    peaks = [peak(a, b) for a, b in _same_moments(lake, n)]
    return bool(peaks) and float(np.median(peaks)) > MAX_PEAK


def _same_moments(lake: Lake, n: NearCopy) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Luma grids of keyframes that both episodes have at one moment of the motion."""
    rows = lake.rows(
        "SELECT DISTINCT k.frame_index, k.sha256, g.sha256 FROM keyframes k JOIN keyframes g "
        "ON g.frame_index = k.frame_index + ? WHERE k.dataset = ? AND k.episode_index = ? AND g.dataset = ? "
        "AND g.episode_index = ? AND k.purpose = 'coarse' AND g.purpose = 'coarse' "
        "AND k.camera = (SELECT cameras[1] FROM episodes e WHERE (e.dataset, e.episode_index) = "
        "(k.dataset, k.episode_index)) AND g.camera = (SELECT cameras[1] FROM episodes e WHERE "
        "(e.dataset, e.episode_index) = (g.dataset, g.episode_index)) "
        "ORDER BY 1",
        [n.shift, n.dataset, n.episode_index, n.of_dataset, n.of_episode],
    )
    for _, a, b in rows:
        yield luma_grid(lake, a), luma_grid(lake, b)


def luma_grid(lake: Lake, sha256: str) -> np.ndarray:
    jpeg = np.frombuffer(lake.workspace.keyframe(sha256).read_bytes(), np.uint8)
    luma = cv2.imdecode(jpeg, cv2.IMREAD_GRAYSCALE)
    assert luma is not None, f"keyframe {sha256} is no picture"
    return cv2.resize(luma, (GRID, GRID), interpolation=cv2.INTER_AREA).ravel().astype(np.float64)


def peak(a: np.ndarray, b: np.ndarray) -> float:
    """How far the largest differences of two pictures stand out of their mean, at equal brightness and contrast."""
    gain, offset = np.polyfit(a, b, 1) if np.ptp(a) else (1.0, 0.0)
    differences = np.abs(b - (gain * a + offset))
    large = np.partition(differences, -LARGEST)[-LARGEST]
    return float(large / max(differences.mean(), MIN_MEAN))
