"""Near-copies: episodes of a held-out split that show what an episode of training shows.

Found by the perceptual hashes of the preferred camera, and told from different runs of one task, which share scene,
camera and often most of their motion, by pictures. The numbers behind the thresholds stand in docs/releases.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from warehouse.lake import Lake

MIN_HASHES = 8  # distinct hashes that an episode must have to be told by them
MAX_EPISODES = 50  # a hash that more episodes have is background: it tells nothing
MIN_SHARED = 0.3  # of the distinct hashes of the episode that has fewer
MAX_PARTNERS = 5  # episodes of training that a held-out one is compared with frame by frame: those that share most
MIN_OVERLAP = 0.5  # of the shorter episode
MAX_BITS = 1.5  # mean Hamming distance of frames laid side by side
MIN_CORRELATION = 0.8  # of their visual change
GRID, BRIGHTEST = 64, 20
MAX_PEAK = 17.0  # where the 20th largest difference of 4,096 cells over the mean is larger, things stand elsewhere


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
WITH shown AS (
  SELECT e.dataset, e.episode_index, e.cameras[1] AS camera, s.split FROM episodes e
  JOIN splits s USING (dataset, episode_index) WHERE e.status = 'ok' AND list_contains(?, e.dataset)),
hashes AS (
  SELECT f.dataset, f.episode_index, any_value(w.split) AS split, f.phash, min(f.frame_index) AS first_frame
  FROM frames f JOIN shown w ON w.dataset = f.dataset AND w.episode_index = f.episode_index AND w.camera = f.camera
  WHERE f.phash IS NOT NULL GROUP BY f.dataset, f.episode_index, f.phash),
rare AS (SELECT phash FROM hashes GROUP BY 1 HAVING count(*) BETWEEN 2 AND {MAX_EPISODES}),
counted AS (SELECT *, count(*) OVER (PARTITION BY dataset, episode_index) AS hashes FROM hashes)
SELECT c.* FROM counted c SEMI JOIN rare USING (phash) WHERE c.hashes >= {MIN_HASHES}"""

_PARTNERS = f"""
CREATE OR REPLACE TEMP TABLE copy_partners AS
SELECT a.dataset, a.episode_index, any_value(a.split) AS split, b.dataset AS of_dataset,
       b.episode_index AS of_episode, count(*) / least(any_value(a.hashes), any_value(b.hashes)) AS shared,
       mode(b.first_frame - a.first_frame) AS shift
FROM copy_hashes a JOIN copy_hashes b USING (phash)
WHERE a.split <> 'train' AND b.split = 'train'
GROUP BY a.dataset, a.episode_index, b.dataset, b.episode_index
HAVING shared >= {MIN_SHARED}
QUALIFY row_number() OVER (
  PARTITION BY a.dataset, a.episode_index ORDER BY shared DESC, of_dataset, of_episode) <= {MAX_PARTNERS}"""

# The first frame's change is 0 by definition, so it does not count for the correlation
_ALIGNED = f"""
WITH lengths AS (SELECT dataset, episode_index, num_frames, cameras[1] AS camera FROM episodes)
SELECT p.dataset, p.episode_index, p.split, p.of_dataset, p.of_episode, p.shift,
       avg(bit_count(xor(f.phash, g.phash))) AS bits, any_value(p.shared) AS shared
FROM copy_partners p
JOIN lengths a ON a.dataset = p.dataset AND a.episode_index = p.episode_index
JOIN lengths b ON b.dataset = p.of_dataset AND b.episode_index = p.of_episode
JOIN frames f ON f.dataset = p.dataset AND f.episode_index = p.episode_index AND f.camera = a.camera
JOIN frames g ON g.dataset = p.of_dataset AND g.episode_index = p.of_episode AND g.camera = b.camera
             AND g.frame_index = f.frame_index + p.shift
GROUP BY ALL
HAVING count(*) >= {MIN_OVERLAP} * any_value(least(a.num_frames, b.num_frames)) AND bits <= {MAX_BITS}
   AND coalesce(corr(f.visual_change, g.visual_change) FILTER (f.frame_index > 0 AND g.frame_index > 0), 1)
       >= {MIN_CORRELATION}
ORDER BY ALL"""


def near_copies(lake: Lake, datasets: list[str]) -> list[NearCopy]:
    """Held-out episodes of some datasets whose pictures stand in training: exact, encoded anew, cut or shifted.

    Joins on hashes that few episodes have, and compares each held-out episode with a handful of others: the work grows
    with the frames, not with their square. Copies at another frame rate, mirrored or cropped are not found.
    """
    lake.con.execute(_HASHES, [datasets])
    lake.con.execute(_PARTNERS)
    found = [NearCopy(*row) for row in lake.rows(_ALIGNED)]
    lake.con.execute("DROP TABLE copy_hashes")
    lake.con.execute("DROP TABLE copy_partners")
    return [n for n in found if not _told_apart(lake, n)]


def _told_apart(lake: Lake, n: NearCopy) -> bool:
    """Do keyframes of the same moment differ in few places by much, as where an object stands elsewhere?

    Coding and light change a picture a little everywhere. Without keyframes of one moment nothing tells them apart.
    """
    peaks = [_peak(a, b) for a, b in _same_moments(lake, n)]
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
        yield _grid(lake, a), _grid(lake, b)


def _grid(lake: Lake, sha256: str) -> np.ndarray:
    jpeg = np.frombuffer(lake.workspace.keyframe(sha256).read_bytes(), np.uint8)
    luma = cv2.imdecode(jpeg, cv2.IMREAD_GRAYSCALE)
    assert luma is not None, f"keyframe {sha256} is no picture"
    return cv2.resize(luma, (GRID, GRID), interpolation=cv2.INTER_AREA).ravel().astype(np.float64)


def _peak(a: np.ndarray, b: np.ndarray) -> float:
    """How far the differences of two pictures stand out of their mean, once brightness and contrast are made equal."""
    gain, offset = np.polyfit(a, b, 1) if np.ptp(a) else (1.0, 0.0)
    apart = np.abs(b - (gain * a + offset))
    return float(np.partition(apart, -BRIGHTEST)[-BRIGHTEST] / max(apart.mean(), 0.1))
