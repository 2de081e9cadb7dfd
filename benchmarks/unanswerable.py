"""Can unanswerable samples be told by their last picture alone, by its colours, edges and flatness?

    python -m benchmarks.unanswerable --workspace W [--per-episode 16] DATASET ...

Of each labelled episode so many unanswerable samples and so many answerable ones are drawn, by the sampler itself.
For each reason two small classifiers, a linear one and a forest, are trained to tell the two kinds apart by colour
histograms, by edge and flatness statistics, and by both; what is shown is the share told rightly in episodes that they
were not trained on. Classes are of one size, so chance is 0.50. `board` is what covering was before: four fifths of
each side of answerable pictures under one colour.

Other ways to cover, tried on the same pictures of `sim_long` (told by colours, by edges; as it is: 0.86, 0.84):

    the covered pixels themselves, in the order of a texture                    0.97, 0.95
    regions of another moment, turned about their own centre                    0.78, 0.85
    two large ones of these (the scene can be read in them upside down)         0.75, 0.82
    rims along the path of least difference                                     0.86, 0.88
    the best of eight arrangements by finer counts                              0.87, 0.81
    only what is in another place at the start, at the end, or mostly           0.90, 0.84

The same pictures uncovered are told in 0.45 to 0.50. Rims are edges between plain areas (7 of 100 pixels fewer lie in
flat ones), they mix colours that the scene has not, and the grey of its wall gets rarer (17 to 10 of 100 pixels).
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import NamedTuple

import cv2
import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from annotate.config import SamplesConfig
from annotate.samples import samples_stage
from benchmarks.harness import arguments
from core.errors import UserError
from core.paths import Workspace
from pipeline.config import stored_build
from pipeline.picture_cache import PictureStore
from pipeline.reading import records_of
from pipeline.stages.samples import labelled_episodes, other_task_episodes
from pipeline.stages.shards import PictureDecoder, picture_key
from warehouse.lake import Lake
from warehouse.lake.stored import coarse_keyframes
from warehouse.measured import MeasuredSource

ANSWERABLE = "answerable"
BOARD = "board"
SIDE = 128  # of the pictures that colours are counted on; edges are looked for at their own size
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.97)
FOLDS, FEWEST = 5, 20  # pictures of a reason: fewer say nothing


class Shown(NamedTuple):
    """The last picture of a sample, RGB uint8 [h, w, 3]; `episode`: whose sample it is."""

    episode: int
    rgb: np.ndarray


def colours(rgb: np.ndarray) -> np.ndarray:
    """Histograms of RGB in 64 cells, and of hue, saturation and value in 12 each."""
    small = cv2.resize(rgb, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    hsv = cv2.cvtColor(small, cv2.COLOR_RGB2HSV)
    counts = [cv2.calcHist([small], [0, 1, 2], None, [4] * 3, [0, 256] * 3)]
    counts += [cv2.calcHist([hsv], [k], None, [12], [0, 180 if k == 0 else 256]) for k in range(3)]
    return np.sqrt(np.concatenate([c.ravel() for c in counts]) / SIDE**2)


def edges(rgb: np.ndarray) -> np.ndarray:
    """Quantiles of gradients, second differences and local spreads of luma, and shares of flat and of sharp pixels."""
    luma = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
    across = cv2.Sobel(luma, cv2.CV_32F, 1, 0)
    down = cv2.Sobel(luma, cv2.CV_32F, 0, 1)
    gradient = np.hypot(across, down)
    second = np.abs(cv2.Laplacian(luma, cv2.CV_32F))
    spread = np.sqrt(np.maximum(cv2.blur(luma**2, (9, 9)) - cv2.blur(luma, (9, 9)) ** 2, 0))
    quantiles = [np.log1p(np.quantile(values, QUANTILES)) for values in (gradient, second, spread)]
    shares = [
        (spread < 1).mean(),
        (spread < 3).mean(),
        (gradient > 60).mean(),
        (gradient > 120).mean(),
    ]
    return np.concatenate([*quantiles, shares])


FEATURES = {"colours": (colours,), "edges": (edges,), "both": (colours, edges)}


def accuracy(answerable: Sequence[Shown], unanswerable: Sequence[Shown], features: str) -> float:
    """Share of pictures told rightly, the better of two classifiers, over episodes that were left out of training.

    Raises UserError for pictures of one episode alone.
    """
    size = min(len(answerable), len(unanswerable))
    rng = np.random.default_rng(0)
    all_pictures: list[Shown] = []
    for kind in (answerable, unanswerable):
        all_pictures += [kind[k] for k in rng.permutation(len(kind))[:size]]

    def measured(picture: Shown) -> np.ndarray:
        return np.concatenate([measure(picture.rgb) for measure in FEATURES[features]])

    x = np.stack(list(map(measured, all_pictures)))
    y = np.repeat([0, 1], size)
    episodes = np.array([s.episode for s in all_pictures])
    folds = min(FOLDS, len(set(episodes.tolist())))
    if folds < 2:
        raise UserError(
            "pictures of one episode cannot be parted into those to train on and those to judge"
        )
    forest = RandomForestClassifier(80, min_samples_leaf=3, random_state=0)
    rates = []
    for model in (
        make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=500)),
        forest,
    ):
        right = np.zeros(len(y), bool)
        for train, test in GroupKFold(folds).split(x, y, episodes):
            right[test] = model.fit(x[train], y[train]).predict(x[test]) == y[test]
        rates.append(float(right.mean()))
    return max(rates)


def board(rgb: np.ndarray, seed: int) -> np.ndarray:
    """The picture behind a board of one colour over four fifths of each side."""
    rng = np.random.default_rng(seed)
    h, w = rgb.shape[:2]
    top, left_px = (int(rng.random() * 0.2 * side) for side in (h, w))
    covered = rgb.copy()
    covered[top : top + round(0.8 * h), left_px : left_px + round(0.8 * w)] = rng.integers(
        0, 256, 3, np.uint8
    )
    return covered


def last_pictures(lake: Lake, dataset: str, per_episode: int) -> dict[str, list[Shown]]:
    """Last pictures of samples of a built dataset by their reason, and of answerable ones. Raises UserError."""
    build = stored_build(lake, dataset)
    if build is None:
        raise UserError(f"{lake.workspace.root} has no dataset {dataset}")
    half = -(-per_episode // 2)
    config = SamplesConfig(
        unanswerable_per_episode=per_episode,
        text_demo_per_episode=half,
        visual_demo_per_episode=half,
        cross_view_per_episode=0,
        progress_per_episode=0,
        actions_per_episode=0,
        segmentation_per_episode=0,
    )
    rows: list[dict] = []
    for (chunk,) in lake.rows(
        "SELECT DISTINCT chunk FROM episode_facts WHERE dataset = ? ORDER BY 1", [dataset]
    ):
        episodes = list(labelled_episodes(lake, build, chunk))
        listed_episodes = other_task_episodes(lake, dataset, chunk)
        rows += samples_stage(episodes, config, listed_episodes).to_pylist()
    keys = [picture_key(row["pictures"][-1]) for row in rows]

    by_kind: dict[str, list[Shown]] = defaultdict(list)
    with TemporaryFile() as file:
        pictures = PictureStore(file)
        source = MeasuredSource(lake, build.source(lake.workspace.sources))
        keyframes = coarse_keyframes(lake, dataset, {key[0] for key in keys})
        for record in records_of(lake, dataset, {key[0] for key in keys}):
            wanted_pictures = {key: None for key in keys if key[0] == record.episode_index}
            PictureDecoder(lake, build, source, record, pictures, keyframes).decode(wanted_pictures)
        for row, key in zip(rows, keys, strict=True):
            if key in pictures.places:
                by_kind[row["reason"] or ANSWERABLE].append(
                    Shown(row["episode_index"], _decoded(pictures.get(key)))
                )
    by_kind[BOARD] = [
        Shown(s.episode, board(s.rgb, seed)) for seed, s in enumerate(by_kind[ANSWERABLE])
    ]
    return dict(by_kind)


def _decoded(jpeg: bytes) -> np.ndarray:
    bgr = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert bgr is not None
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("datasets", nargs="+")
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--per-episode", type=int, default=16)
    options = parser.parse_args()
    lake = Lake(Workspace(options.workspace.resolve()), read_only=True)
    print("| dataset | reason | pictures | colours | edges | both |\n|---|---|---|---|---|---|")
    for dataset in options.datasets:
        by_kind = last_pictures(lake, dataset, options.per_episode)
        answerable = by_kind.pop(ANSWERABLE, [])
        for kind, kind_pictures in sorted(by_kind.items()):
            if (
                min(len(kind_pictures), len(answerable)) < FEWEST
                or len({s.episode for s in kind_pictures}) < 2
            ):
                print(f"| {dataset} | {kind} | {len(kind_pictures)} | too few | | |", flush=True)
                continue
            rates = [accuracy(answerable, kind_pictures, features) for features in FEATURES]
            print(
                f"| {dataset} | {kind} | {len(kind_pictures)} | {' | '.join(f'{r:.2f}' for r in rates)} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
