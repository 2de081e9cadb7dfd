"""Pictures that are edited for unanswerable samples. An edit is named <kind>-<seed as 8 hex
digits>.

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

from annotate.pictures import area_averaged
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
ANGLES = np.linspace(0, 2 * np.pi, 72, endpoint=False)  # of the corners of an outline
BLEND = (0.002, 0.008)  # width of a patch's blended rim, as a share of the picture's longer side
NUM_TEXTURES = 4  # pictures of the run that patches are taken from
APART = 0.1  # of the run: pictures nearer to the covered one in time would show nearly the same
PLACES, OUTLINES = 160, 6  # tried for each patch
GRID = 32  # side of the grid on which movement is looked for
MOVES = 0.4  # share of the largest difference from the usual picture above which a cell of the grid moves
SMALL = 48  # px: longer side of the small pictures by which places are compared, at most
BLOCK = 8  # JPEG's: a texture that is moved by whole blocks keeps its noise
FACTORS = (1, 2, 4, BLOCK)  # by which pictures are made small: so many small pixels are a block
FINALISTS = 16  # places that suit by their colours, whose edges are compared
DARK = 10.0  # luma of bars at the sides of a picture, which stay as they are
NUM_COLOURS = 640  # codes of _colours
EDGE_WEIGHT = 3  # of edges against colours: each seam adds some
# Classes of differences of luma between neighbours
EDGES = np.array([2, 4, 8, 16, 32, 64, 128], np.float32)
LEVEL_OF_DIFFERENCE = np.searchsorted(EDGES, np.arange(256))  # the class of each
CHROMA_STEPS = np.clip((np.arange(256) - 80) // 12, 0, 7)  # of a colour difference


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
    if np.array_equal(picture, rgb):
        raise FailedError(
            f"the image editor {name} left a picture as it was, although told: {instruction}"
        )
    return picture


def covered_picture(
    rgb: np.ndarray, run: Mapping[int, np.ndarray], frame: int, seed: int
) -> np.ndarray:
    """The picture uint8 [h, w, 3] of frame `frame`, covered; `run` has pictures of the same camera
    by frame.

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
    textures = [
        cv2.resize(run[k], size, interpolation=cv2.INTER_AREA)[picture_area]
        for k in map(int, drawn)
    ]
    cells = moving_blocks(list(run.values())).astype(np.uint8)
    mask = cv2.resize(cells, size, interpolation=cv2.INTER_NEAREST)[picture_area]
    matcher = _Matcher(rgb[picture_area], textures)
    out = rgb[picture_area].astype(np.float32)
    for patch in _patches(mask, rng):
        texture = matcher.best(_to_bytes(out), patch, rng)
        rim = rng.uniform(*BLEND) * max(mask.shape)
        alpha = cv2.GaussianBlur(patch.astype(np.float32), (0, 0), rim)
        out += cv2.merge([alpha] * 3) * (texture - out)
    result = rgb.copy()
    result[picture_area] = _to_bytes(out)
    return result


def moving_blocks(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Where anything moves in a run, bool [GRID, GRID]; everywhere, where nothing seems to."""
    grids = [cv2.cvtColor(area_averaged(p, GRID), cv2.COLOR_RGB2GRAY) for p in pictures]
    luma = np.stack(grids).astype(np.float32)
    largest = np.abs(luma - np.median(luma, axis=0)).max(axis=0)
    cells = (largest > MOVES * np.quantile(largest, 0.98)).astype(np.uint8)
    # A cell beside one that moves counts too; a cell alone does not
    around = np.ones((3, 3), np.uint8)
    cells = cv2.morphologyEx(cv2.dilate(cells, around), cv2.MORPH_OPEN, around) > 0
    return cells if cells.any() else np.ones((GRID, GRID), bool)


def _without_black_bars(rgb: np.ndarray) -> tuple[slice, slice]:
    """The picture without black bars at its sides, in whole blocks where it has some."""
    bright = cv2.inRange(rgb, np.zeros(3), np.full(3, DARK)) == 0
    spans = []
    for shares in (bright.mean(axis=1), bright.mean(axis=0)):
        lit = np.flatnonzero(shares > 0.02)
        start, end = (int(lit[0]), int(lit[-1]) + 1) if len(lit) else (0, len(shares))
        start = -(-start // BLOCK) * BLOCK
        blocks = (end - start) // BLOCK
        spans.append(slice(start, start + blocks * BLOCK) if blocks else slice(0, len(shares)))
    return spans[0], spans[1]


def _mirrored(texture: np.ndarray, turned: bool, block: int) -> np.ndarray:
    """A texture mirrored top to bottom or turned by half, with its reflection around it, so that no seam runs in it."""
    flipped = cv2.flip(texture, -1 if turned else 0)
    y, x = (side // 2 // block * block for side in texture.shape[:2])
    return cv2.copyMakeBorder(flipped, y, y, x, x, cv2.BORDER_REFLECT)


def _to_bytes(picture: np.ndarray) -> np.ndarray:
    return (picture + np.float32(0.5)).astype(np.uint8)


def _patches(mask: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Patches uint8 [h, w] over the mask, each over much of what the ones before it left."""
    uncovered = mask.copy()
    total = np.float32(cv2.countNonZero(mask))
    patches = []
    while len(patches) < MOST_PATCHES and cv2.countNonZero(uncovered) > (1 - COVERED) * total:
        ys, xs = np.nonzero(uncovered)
        places = (int(rng.integers(len(ys))) for _ in range(OUTLINES))
        outlines = [_outline(mask.shape, int(ys[k]), int(xs[k]), rng) for k in places]
        # One that hides much, and little besides
        gains = [
            cv2.countNonZero(cv2.bitwise_and(uncovered, o))
            * (float(0.5 / total) + 1 / (cv2.countNonZero(o) + 1))
            for o in outlines
        ]
        patches.append(outlines[int(np.argmax(gains))])
        uncovered[patches[-1] > 0] = 0
    return patches


def _outline(shape: tuple[int, ...], y: int, x: int, rng: np.random.Generator) -> np.ndarray:
    """A filled shape around a point, uint8 [h, w]: an ellipse of drawn axes and direction with a wavy rim."""
    h, w = shape
    half_height, half_width = rng.uniform(*PATCH, 2) * (h, w)
    radius = np.ones_like(ANGLES)
    for waves in range(2, 6):
        radius += rng.normal(0, ROUGHNESS / (waves - 1)) * np.cos(
            waves * ANGLES + rng.uniform(0, 2 * np.pi)
        )
    radius = np.clip(radius, 0.6, 1.5)
    ellipse = radius * (half_width * np.cos(ANGLES) + 1j * half_height * np.sin(ANGLES))
    points = ellipse * np.exp(1j * rng.uniform(0, np.pi)) + complex(x, y)
    corners = np.stack([points.real, points.imag], axis=1)
    filled = np.zeros((h, w), np.uint8)
    cv2.fillPoly(filled, [np.round(corners).astype(np.int32)], 1)
    return filled


class _Matcher:
    """Finds where to take a patch from, so that colours and edges of the whole picture stay most as
    they were.

    Compared is on small pictures: counts of colours and of differences between neighbours, by their
    square roots, so that what is rare in a picture weighs as what is common. Edges are counted of
    the places with the best colours.
    """

    def __init__(self, rgb: np.ndarray, textures: Sequence[np.ndarray]) -> None:
        # Each texture as it is mirrored, and turned
        self._ways = list(product(textures, (False, True)))
        self._factor = next((f for f in FACTORS if max(rgb.shape) <= f * SMALL), BLOCK)
        self._block = BLOCK // self._factor
        ways_in_small = product(map(self._in_small, textures), (False, True))
        self._small = np.stack([_mirrored(*way, self._block) for way in ways_in_small])
        self._colours = _colours(self._small)
        target = self._in_small(rgb)[None]
        self._target_colours = np.sqrt(_counts(_colours(target), NUM_COLOURS))
        self._target_edges = np.sqrt(_edges(target[..., 0]))

    def best(self, picture: np.ndarray, patch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The texture, as large as the picture, at the best of PLACES drawn places for a patch of the picture."""
        small = self._in_small(picture)
        h, w = small.shape[:2]
        is_patch = cv2.resize(patch * 255, (w, h), interpolation=cv2.INTER_AREA) > 127
        number = rng.integers(len(self._small), size=PLACES)
        high, wide = self._small.shape[1:3]
        room = (high - h) // self._block + 1, (wide - w) // self._block + 1
        ys, xs = rng.integers(room, size=(PLACES, 2)).T * self._block

        pixels = np.ravel_multi_index(np.nonzero(is_patch), (high, wide))
        places = np.ravel_multi_index((number, ys, xs), self._colours.shape)
        counts = _counts(self._colours.take(places[:, None] + pixels), NUM_COLOURS)
        counts += _counts(_colours(small)[None, ~is_patch], NUM_COLOURS)
        cost = _cost(counts, self._target_colours)
        finalists = np.argsort(cost, kind="stable")[:FINALISTS]
        lumas = self._small[..., 0]
        windows = [lumas[number[k], ys[k] :, xs[k] :][:h, :w] for k in finalists]
        edges = _edges(np.where(is_patch, windows, small[..., 0]))
        cost[finalists] += EDGE_WEIGHT * _cost(edges, self._target_edges)
        k = finalists[cost[finalists].argmin()]
        texture = _mirrored(*self._ways[number[k]], BLOCK)
        corner = texture[ys[k] * self._factor :, xs[k] * self._factor :]
        return corner[: picture.shape[0], : picture.shape[1]]

    def _in_small(self, rgb: np.ndarray) -> np.ndarray:
        """A picture made small, as luma and colour differences."""
        h, w = (max(1, side // self._factor) for side in rgb.shape[:2])
        small = cv2.resize(rgb, (w, h), interpolation=cv2.INTER_AREA)
        return cv2.cvtColor(small, cv2.COLOR_RGB2YCrCb)


def _colours(ycrcb: np.ndarray) -> np.ndarray:
    """A code for each pixel's colour: ten steps of luma, eight of each colour difference."""
    red, blue = (CHROMA_STEPS[ycrcb[..., k]] for k in (1, 2))
    return (ycrcb[..., 0] // 26) * np.intp(64) + red * 8 + blue


def _edges(luma: np.ndarray) -> np.ndarray:
    """How many neighbours differ by how much, of each picture [n, h, w]."""
    steps = (np.diff(luma.astype(np.int16), axis=k).reshape(len(luma), -1) for k in (1, 2))
    levels = LEVEL_OF_DIFFERENCE[np.abs(np.concatenate([*steps], axis=1))]
    return _counts(levels, len(EDGES) + 1)


def _counts(codes: np.ndarray, number: int) -> np.ndarray:
    """How often each code stands in each of n rows [n, ...], int [n, number]."""
    n = len(codes)
    rows = np.arange(n)[:, None] * number
    return np.bincount((codes.reshape(n, -1) + rows).ravel(), minlength=n * number).reshape(n, -1)


def _cost(counts: np.ndarray, wanted_roots: np.ndarray) -> np.ndarray:
    return ((np.sqrt(counts) - wanted_roots) ** 2).sum(axis=1)
