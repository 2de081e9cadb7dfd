"""Pictures that are edited for unanswerable samples. An edit is named <kind>-<seed as 8 hex digits>.

`occluded`: all that a task is about is covered, by patches of other pictures of the same run. A
board of one colour would give itself away: a model could learn to look for the board. So the
patches are real texture, of the run's own pictures turned upside down, and of many places to take
one from the one counts that leaves the picture's colours and edges most as they were. Where patches
lie, their sizes and shapes are drawn; their rims are blended. They cover what moves anywhere in the
run, so the things are hidden wherever they are. `edited`: by an image editor.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from itertools import product

import cv2
import numpy as np

from core.errors import FailedError

OCCLUDED = "occluded"
EDITED = "edited"
EDITORS = "proccorpus.image_editors"

# (RGB uint8 [h, w, 3], what to do, seed) -> RGB uint8 [h', w', 3]
Editor = Callable[[np.ndarray, str, int], np.ndarray]

COVERED = 0.9  # share of what moves that is covered, where MOST_PATCHES are enough
MOST_PATCHES = 4
PATCH = (0.34, 0.6)  # half the height and width of a patch, as shares of the picture's
ROUGHNESS = 0.12  # of a patch's outline: by how much its radius varies
BLEND = (0.002, 0.008)  # width of a patch's blended rim, as a share of the picture's longer side
NUM_TEXTURES = 4  # pictures of the run that patches are taken from
APART = 0.1  # of the run: pictures nearer to the covered one in time would show nearly the same
PLACES, OUTLINES = 160, 6  # tried for each patch
GRID = 32  # side of the grid on which movement is looked for
MOVES = 0.4  # share of the largest difference from the usual picture above which a cell of the grid moves
SMALL = 96  # longer side of the small pictures by which places are compared
BLOCK = 8  # JPEG's: a texture that is moved by whole blocks keeps its noise
DARK = 10  # luma of bars at the sides of a picture, which stay as they are
NUM_COLOURS = 640  # codes of _colours
EDGE_WEIGHT = 3  # of edges against colours: each seam adds some
# Classes of differences of luma between neighbours
EDGES = np.array([2, 4, 8, 16, 32, 64, 128], np.float32)
LEVEL_OF_DIFFERENCE = np.searchsorted(EDGES, np.arange(256))  # the class of each


def load_editor(name: str) -> Editor:
    """The entry point of that name in the group proccorpus.image_editors of a package. Raises FailedError."""
    editors = entry_points(group=EDITORS)
    if name not in editors.names:
        installed = ", ".join(sorted(editors.names)) or "none"
        raise FailedError(
            f"samples.image_editor: no installed package has the {EDITORS} entry point {name!r}: {installed}"
        )
    return editors[name].load()


def edited_picture(
    rgb: np.ndarray, instruction: str, seed: int, editor: Editor, name: str
) -> np.ndarray:
    """Edit a picture. Raises FailedError if the editor returns no picture, or the same one."""
    picture = editor(rgb.copy(), instruction, seed)
    if not isinstance(picture, np.ndarray) or (picture.dtype, picture.shape[2:]) != (
        np.uint8,
        (3,),
    ):
        raise FailedError(f"the image editor {name} did not return an array uint8 [h, w, 3]")
    if picture.shape == rgb.shape and (picture == rgb).all():
        raise FailedError(
            f"the image editor {name} left a picture as it was, although told: {instruction}"
        )
    return picture


def covered_picture(
    rgb: np.ndarray, run: Mapping[int, np.ndarray], frame: int, seed: int
) -> np.ndarray:
    """The picture uint8 [h, w, 3] of frame `frame`, covered; `run` has pictures of the same camera by frame.

    Raises ValueError for a run without pictures.
    """
    if not run:
        raise ValueError("no picture to cover another one with")
    rng = np.random.default_rng(seed)
    # Textures are of drawn pictures of the run, of none of about that moment where it has others
    frames = np.array(sorted(run))
    distant_frames = frames[np.abs(frames - frame) > APART * (frames[-1] + 1)]
    drawn = rng.permutation(distant_frames if len(distant_frames) else frames)[:NUM_TEXTURES]
    picture_area = _without_black_bars(rgb)
    size = rgb.shape[1::-1]
    sized = (run[k] if run[k].shape == rgb.shape else cv2.resize(run[k], size, interpolation=cv2.INTER_AREA)
             for k in map(int, drawn))  # fmt: skip
    textures = [
        _mirrored_texture(texture[picture_area], turned)
        for texture, turned in product(sized, (False, True))
    ]
    mask = (
        cv2.resize(
            moving_blocks(list(run.values())).astype(np.uint8),
            size,
            interpolation=cv2.INTER_NEAREST,
        )[picture_area]
        > 0
    )
    matcher = _Matcher(rgb[picture_area], textures)
    out = rgb[picture_area].astype(np.float32)
    for patch in _patches(mask, rng):
        texture = matcher.best(_to_bytes(out), patch, rng)
        rim = rng.uniform(*BLEND) * max(mask.shape)
        alpha = cv2.GaussianBlur(patch.astype(np.float32), (0, 0), rim)[..., None]
        out = alpha * texture + (1 - alpha) * out
    result = rgb.copy()
    result[picture_area] = _to_bytes(out)
    return result


def moving_blocks(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Where anything moves in a run, bool [GRID, GRID]; everywhere, where nothing seems to."""
    grids = [
        cv2.resize(cv2.cvtColor(p, cv2.COLOR_RGB2GRAY), (GRID, GRID), interpolation=cv2.INTER_AREA)
        for p in pictures
    ]
    luma = np.stack(grids).astype(np.float32)
    largest = np.abs(luma - np.median(luma, axis=0)).max(axis=0)
    cells = (largest > MOVES * np.quantile(largest, 0.98)).astype(np.uint8)
    # A cell beside one that moves counts too; a cell alone does not
    around = np.ones((3, 3), np.uint8)
    cells = cv2.morphologyEx(cv2.dilate(cells, around), cv2.MORPH_OPEN, around) > 0
    if cells.any():
        return cells
    return np.ones((GRID, GRID), bool)


def _without_black_bars(rgb: np.ndarray) -> tuple[slice, slice]:
    """The picture without black bars at its sides, in whole blocks where it has some."""
    bright = rgb.max(axis=2) > DARK
    spans = []
    for shares in (bright.mean(axis=1), bright.mean(axis=0)):
        lit = np.flatnonzero(shares > 0.02)
        start, end = (int(lit[0]), int(lit[-1]) + 1) if len(lit) else (0, len(shares))
        start = -(-start // BLOCK) * BLOCK
        blocks = (end - start) // BLOCK
        spans.append(slice(start, start + blocks * BLOCK) if blocks else slice(0, len(shares)))
    return spans[0], spans[1]


def _mirrored_texture(texture: np.ndarray, turned: bool) -> np.ndarray:
    """A texture mirrored top to bottom or turned by half, with its reflection around it, so that no seam runs in it."""
    flipped = cv2.flip(texture, -1 if turned else 0)
    y, x = (side // 2 // BLOCK * BLOCK for side in texture.shape[:2])
    return cv2.copyMakeBorder(flipped, y, y, x, x, cv2.BORDER_REFLECT)


def _to_bytes(picture: np.ndarray) -> np.ndarray:
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8)


def _patches(mask: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Patches uint8 [h, w] over the mask, each over much of what the ones before it left."""
    uncovered = mask.astype(np.float32)
    total = uncovered.sum()
    patches = []
    while len(patches) < MOST_PATCHES and uncovered.sum() > (1 - COVERED) * total:
        ys, xs = np.nonzero(uncovered)
        places = (int(rng.integers(len(ys))) for _ in range(OUTLINES))
        outlines = [_outline(mask.shape, int(ys[k]), int(xs[k]), rng) for k in places]
        # One that hides much, and little besides
        gains = [(uncovered * o).sum() * (0.5 / total + 1 / (o.sum() + 1)) for o in outlines]
        patches.append(outlines[int(np.argmax(gains))])
        uncovered[patches[-1] > 0] = 0
    return patches


def _outline(shape: tuple[int, ...], y: int, x: int, rng: np.random.Generator) -> np.ndarray:
    """A filled shape around a point, uint8 [h, w]: an ellipse of drawn axes and direction with a wavy rim."""
    h, w = shape
    half_height, half_width = rng.uniform(*PATCH, 2) * (h, w)
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    radius = np.ones_like(angle)
    for waves in range(2, 6):
        radius += rng.normal(0, ROUGHNESS / (waves - 1)) * np.cos(
            waves * angle + rng.uniform(0, 2 * np.pi)
        )
    radius = np.clip(radius, 0.6, 1.5)
    along = radius * half_width * np.cos(angle)
    across = radius * half_height * np.sin(angle)
    tilt = rng.uniform(0, np.pi)
    xs = x + along * np.cos(tilt) - across * np.sin(tilt)
    ys = y + along * np.sin(tilt) + across * np.cos(tilt)
    filled = np.zeros((h, w), np.uint8)
    cv2.fillPoly(filled, [np.round(np.stack([xs, ys], axis=1)).astype(np.int32)], 1)
    return filled


class _Matcher:
    """Finds where to take a patch from, so that colours and edges of the whole picture stay most as they were.

    Compared is on small pictures: counts of colours and of differences between neighbours, by their
    square roots, so that what is rare in a picture weighs as what is common. Edges are counted only
    where the colours alone make a place no worse than the best one yet.
    """

    def __init__(self, rgb: np.ndarray, textures: Sequence[np.ndarray]) -> None:
        self._textures = textures
        self._shape = rgb.shape[:2]
        self._scale = min(1.0, SMALL / max(self._shape))
        small = np.stack([self._lab(texture) for texture in textures])
        self._luma = small[..., 0]
        self._colours = _colours(small).astype(np.intp)  # as they are counted
        lab = self._lab(rgb)
        self._small_shape = lab.shape[:2]
        self._wanted_colours = np.sqrt(_counts(_colours(lab), NUM_COLOURS))
        self._wanted_edges = np.sqrt(_edges(lab[..., 0]))

    def best(self, picture: np.ndarray, patch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The texture, as large as the picture, at the best of PLACES drawn places for a patch of the picture."""
        lab, (h, w), (sh, sw) = self._lab(picture), self._shape, self._small_shape
        is_patch = cv2.resize(patch * 255, (sw, sh), interpolation=cv2.INTER_AREA) > 127
        number = rng.integers(len(self._textures), size=PLACES)
        high, wide = self._textures[0].shape[:2]
        ys = rng.integers((high - h) // BLOCK + 1, size=PLACES) * BLOCK
        xs = rng.integers((wide - w) // BLOCK + 1, size=PLACES) * BLOCK
        small_ys, small_xs = (
            np.minimum(np.rint(corners * self._scale).astype(int), limit - side)
            for corners, limit, side in zip((ys, xs), self._luma.shape[1:], (sh, sw), strict=True)
        )
        pixels = np.ravel_multi_index(np.nonzero(is_patch), self._luma.shape[1:])
        places = np.ravel_multi_index((number, small_ys, small_xs), self._luma.shape)
        in_patch = (self._colours.take(pixels + place) for place in places)
        counts = np.stack([_counts(colours, NUM_COLOURS) for colours in in_patch])
        counts += _counts(_colours(lab)[~is_patch], NUM_COLOURS)
        cost = ((np.sqrt(counts) - self._wanted_colours) ** 2).sum(axis=1)
        total_cost = np.full(PLACES, np.inf)
        for k in np.argsort(cost):
            if cost[k] > total_cost.min():
                break
            window = self._luma[number[k], small_ys[k] :, small_xs[k] :][:sh, :sw]
            edges = _edges(np.where(is_patch, window, lab[..., 0]))
            edge_cost = ((np.sqrt(edges) - self._wanted_edges) ** 2).sum()
            total_cost[k] = cost[k] + EDGE_WEIGHT * edge_cost
        best = int(total_cost.argmin())
        return self._textures[number[best]][ys[best] : ys[best] + h, xs[best] : xs[best] + w]

    def _lab(self, rgb: np.ndarray) -> np.ndarray:
        h, w = (max(1, round(side * self._scale)) for side in rgb.shape[:2])
        return cv2.cvtColor(
            cv2.resize(rgb, (w, h), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2LAB
        ).astype(np.int32)


def _colours(lab: np.ndarray) -> np.ndarray:
    """A code for each pixel's colour: ten steps of lightness, eight each of the two others."""
    a, b = (np.clip((lab[..., k] - 80) // 12, 0, 7) for k in (1, 2))
    return (lab[..., 0] // 26) * 64 + a * 8 + b


def _edges(luma: np.ndarray) -> np.ndarray:
    """How many neighbours differ by how much; `luma` holds whole numbers of 0..255."""
    differences = np.concatenate([np.abs(np.diff(luma, axis=axis)).ravel() for axis in (0, 1)])
    return _counts(LEVEL_OF_DIFFERENCE[differences], len(EDGES) + 1)


def _counts(codes: np.ndarray, number: int) -> np.ndarray:
    return np.bincount(codes.ravel(), minlength=number)
