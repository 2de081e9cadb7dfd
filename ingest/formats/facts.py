"""What fields of a source say, whatever they are called: times, rates and numbers of rows, and instructions."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from operator import itemgetter
from typing import Any

import numpy as np

from ingest.formats.listing import ListingBuilder, texts_among
from ingest.formats.side_files import parse_json
from ingest.formats.tables import rate_of
from ingest.formats.writers import inside
from ingest.signals.naming import words

TIME_UNITS_S = (1.0, 1e-3, 1e-6, 1e-9)
MIN_STEP_S, MAX_STEP_S = 1 / 240, 1  # between rows: robots are sampled at 1 to 240 Hz
MAX_TICKS = 1000  # between rows
RATES_DIFFER = 0.05  # share by which a stated rate is another one than that of the rows' times, or of the video
TIME_NAMES = frozenset(
    {
        "timestamp", "timestamps", "time", "times", "time_stamp", "time_stamps", "stamp", "stamps", "time_s",
        "timestamp_s", "timestamps_s", "timestamp_ns", "timestamps_ns", "time_ns", "sim_time",
    }
)  # fmt: skip
# What states the rate, of a group or a dataset
RATE_NAMES = frozenset(
    {
        "fps", "frame_rate", "framerate", "frames_per_second", "sample_rate", "sample_rate_hz", "sampling_rate",
        "frequency", "freq", "control_freq", "control_frequency", "control_hz", "control_rate", "hz", "rate",
        "record_frequency", "recording_frequency",
    }
)  # fmt: skip

# What states how many rows an episode has
LENGTH_NAME = re.compile(
    r"(num|n)_(samples|steps|frames|rows)|((episode|ep|traj|trajectory|demo|run)_)?(length|len)s?"
)


def spelt(name: str) -> str:
    """A name in small letters, its words parted by underscores. Example: spelt("timeStamps") == "time_stamps"."""
    return "_".join(words(name))


def is_rate_name(name: str) -> bool:
    return spelt(name) in RATE_NAMES or name.lower() in RATE_NAMES


def is_length_name(name: str) -> bool:
    return LENGTH_NAME.fullmatch(spelt(name)) is not None


def length_problem(name: str, stored: Any, lengths: Sequence[int]) -> str:
    """What is wrong with a stated length that is none of an episode's, the first of which is that of its rows; "" for
    nothing, also for what is no number.
    """
    value = np.asarray(stored).reshape(-1)
    is_number = value.dtype.kind in "iuf" and len(value) > 0 and np.isfinite(value).all()
    if not is_number or value[0] in lengths:
        return ""
    return f"{name} says {value[0]:g}, its rows are {lengths[0]}"


def times_in_seconds(stored: np.ndarray) -> np.ndarray:
    """Times of rows [n] or [n, 1] in seconds, as far as their steps tell the unit."""
    times = np.asarray(stored, np.float64).reshape(-1)
    step = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    plausible = [unit for unit in TIME_UNITS_S if MIN_STEP_S <= step * unit <= MAX_STEP_S]
    return times * next(iter(plausible), 1.0)


def rate_of_rows(
    listing: ListingBuilder, uri: str, stored: np.ndarray | None, rates: Mapping[str, float]
) -> float | None:
    """Frames per second of the coming episode: by the times of its rows as they are `stored`, else the first of
    the stated `rates`; None for neither. Finds where the two differ, and where the unit of the times is a guess.
    """
    by_times = None if stored is None else _rate_by_times(times_in_seconds(stored))
    name, nearest = next(iter(rates.items()), ("", None))
    if by_times and nearest and abs(nearest / by_times - 1) > RATES_DIFFER:
        detail = f"{name} says {nearest:g} fps, the rows' times {by_times:g}; the times count"
        listing.warn_next("frame_rate", detail, uri)
    elif by_times and not nearest and is_unit_guessed(stored):
        listing.warn_next(
            "frame_rate",
            f"the rows' times have steps of one size in no unit that is stated: {by_times:g} fps is a guess",
            uri,
        )
    return by_times or nearest


def times_of_rows(stored: np.ndarray | None, num_rows: int | None, fps: float) -> np.ndarray | None:
    """Times of rows in seconds; None where there is not one for each, and where they are the numbers of rows, of a
    recording that has not one frame a second.
    """
    times_s = np.zeros(0) if stored is None else times_in_seconds(stored)
    are_numbers = fps != 1 and len(times_s) > 1 and bool((np.diff(times_s) == 1).all())
    return times_s if len(times_s) and len(times_s) == num_rows and not are_numbers else None


def _rate_by_times(times_s: np.ndarray) -> float | None:
    """None where times stand still, run back, are no numbers, or count rows."""
    steps = np.diff(times_s)
    if (
        not len(steps)
        or not np.isfinite(steps).all()
        or np.median(steps) <= 0
        or (steps == 1).all()
    ):
        return None
    return rate_of(round(float(1 / np.median(steps)), 3))


def is_unit_guessed(stored: Any) -> bool:
    """May times as well be numbers of ticks: have all steps one size, too large for seconds and too small for the
    unit of a clock?
    """
    steps = np.diff(np.asarray(stored, np.float64).reshape(-1))
    return bool((steps == steps[:1]).all() and MAX_STEP_S < steps.max(initial=0) <= MAX_TICKS)


def rate_of_simulation(env: Mapping[str, Any]) -> list[Any]:
    """What could be the control rate, in the places where writers keep it in env_args."""
    step_s = inside(env, "sim_args/dt")
    steps = inside(env, "sim_args/decimation")
    is_stepped = (
        isinstance(step_s, int | float) and isinstance(steps, int | float) and step_s * steps > 0
    )
    stepped = [round(1 / (step_s * steps), 3)] if is_stepped else []
    places = (
        "env_kwargs/control_freq", "control_freq", "env_kwargs/sim_config/control_freq", "fps", "env_kwargs/fps",
        "env_info/env_kwargs/sim_config/control_freq",
    )  # fmt: skip
    return [*(inside(env, place) for place in places), *stepped]


# Instructions among texts, also within texts that hold JSON

# Words in the name of a field that holds an instruction, the plainest first
INSTRUCTION_WORDS = (
    ("instruction", "instructions"),
    ("language", "lang", "prompt"),
    ("task", "tasks"),
    ("description", "goal", "command", "caption"),
)
# In names of fields that are about a task, and are no text of it
NOT_A_TEXT = frozenset(
    {
        "id",
        "index",
        "idx",
        "embedding",
        "embed",
        "type",
        "category",
        "suite",
        "version",
        "env",
        "file",
        "path",
        "bddl",
    }
)
MAX_DEPTH = 3  # objects within objects, in JSON


def instruction(
    listing: ListingBuilder,
    uri: str,
    usual_places: Iterable[str],
    texts_at: Callable[[str], Sequence[str] | None],
    texts_by_name: Callable[[], Mapping[str, Sequence[str]]],
    is_of_rows: Callable[[str], bool],
    *,
    are_all: bool = False,
) -> tuple[list[str], tuple[str, ...]]:
    """Where the instruction of the coming episode is, and what it says: at all places that the registry names; else at
    the first of the usual ones that has a text, or at all of them (`are_all`); else in the one of `texts_by_name`
    whose name says so.

    `texts_at` gives the different texts at a place; `is_of_rows`: has it one for each row? Then several are steps.
    """
    registered = listing.source.config.keys.language
    texts = {place: texts_at(place) or () for place in registered or usual_places}
    places = [place for place in texts if texts[place]]
    if not places and not registered:
        name, texts[name] = instructions(texts_by_name())
        places = [name] if texts[name] else []
    if not registered and not are_all:
        del places[1:]
    steps = {place: texts[place] for place in places if len(texts[place]) > 1 and is_of_rows(place)}
    return places, listing.whole_task(texts_among(map(texts.get, places)), steps, uri)


@lru_cache(maxsize=4096)
def rank_of(name: str) -> int | None:
    """How plainly a field's name says that it holds an instruction, 0 is best; None where it does not."""
    parts = set(words(name.rpartition("/")[2]))
    if not NOT_A_TEXT.isdisjoint(parts):
        return None
    return next(
        (rank for rank, names in enumerate(INSTRUCTION_WORDS) if not parts.isdisjoint(names)), None
    )


def instructions(fields: Mapping[str, Sequence[str]]) -> tuple[str, tuple[str, ...]]:
    """The field that holds the instruction by its name, and its texts; ("", ()) for none."""
    candidates: list[tuple[int, int, str, tuple[str, ...]]] = []
    for place, (name, texts) in enumerate(fields.items()):
        rank = rank_of(name)
        # Of the first text that holds JSON with one; of equal ranks the first one counts
        in_json = (min(_ranked(text), key=itemgetter(0), default=None) for text in texts)
        if json_instruction := next(filter(None, in_json), None):
            candidates.append((json_instruction[0], place, name, json_instruction[1]))
        elif rank is not None and (
            plain := texts_among(text for text in texts if not _is_json(text))
        ):
            candidates.append((rank, place, name, plain))
    _, _, name, texts = min(candidates, default=(0, 0, "", ()))
    return name, texts


def _is_json(text: str) -> bool:
    return text.lstrip().startswith("{")


def _ranked(content: Any, depth: int = 0) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The instructions in an object of JSON, or in a text that holds one, by the names of its fields, each with its
    rank.
    """
    if isinstance(content, str) and not depth and _is_json(content):
        with suppress(ValueError):
            content = parse_json(content)
    if not isinstance(content, dict) or depth >= MAX_DEPTH:
        return
    for name, value in content.items():
        rank = rank_of(str(name))
        if rank is not None and (texts := texts_among([value])):
            yield rank, texts
        yield from _ranked(value, depth + 1)
