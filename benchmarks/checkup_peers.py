"""Other checkers beside `proccorpus inspect --full`, for benchmarks/checkup.py --peers: on a written copy of a set with
faults, and on the same copy without. They are installed into an environment of their own in a temporary folder.
"""

import json
import re
import subprocess
import sys
import venv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.checkup_faults import FAULTS, Fault, Spoilt, write_luma
from benchmarks.checkup_sets import DecodedRun, DecodedSet
from benchmarks.harness import own_code_first
from core.paths import ROOT
from samples.making.dataset import (
    DATA_PATH,
    EPISODES_PATH,
    VIDEO_PATH,
    dataset_info,
    jsonable,
    task_table,
    write_json,
)
from samples.making.runs import Recipe, Run
from samples.making.stats import image_stats, table_stats
from samples.making.videos import video_info

VERSIONS = ("rdq[video]==0.3.4", "adduct==0.2.2", "lerobot-lint==0.1.1")
# One fault of each kind, at a size that a person sees; half of them in each copy, so that other runs show what is usual
PLAIN: Mapping[str, float | str] = {
    "camera frozen": 8,
    "camera black": 5,
    "camera moved": "shift 0.16",
    "brightness jumps": 40,
    "rows late or early in one run": 5,
    "copy": "exact",
    "pictures of another run": "other task",
    "action clipped": 0.25,
    "idle start or end": 6,
    "text of another task": "",
    "gripper never closes": "",
    "state jumps and comes back": 10,
    "state stuck": 6,
    "dead joint": "state",
    "other unit": 57.29578,
    "other sign in one run": "action joint",
    "sharpness jumps": 1.6,
    "failed, said to succeed": "",
    "frames dropped": 30,
}
NEAR_COPY = "near copy"
EMPTY_TEXT = "empty text"
CRASHED = "_CRASHED"  # ends the kinds of lerobot-lint that say that its own check failed
# Fields of reports: what names the kind of fault, and the episodes; a finding of more than a share names none
KINDS = ("code", "check", "rule", "detector_id", "detector", "check_id", "id", "name")
EPISODES = ("episode_index", "episode", "episodes", "episode_indices", "episode_id")
MANY = 0.25


@dataclass(frozen=True)
class Placed:
    """A fault of a written copy, and the runs that may be named for it."""

    name: str
    check: str
    episodes: frozenset[int]

    def kinds(self, named_pairs: Iterable[tuple[int, str]], *, is_ours: bool) -> list[str]:
        """The kinds of faults that are said of its runs: of ours the right one, of others any."""
        named_kinds = {
            kind
            for episode, kind in named_pairs
            if episode in self.episodes and not kind.endswith(CRASHED)
        }
        return sorted(named_kinds & {self.check} if is_ours else named_kinds)


@dataclass(frozen=True)
class Peer:
    """A checker, and its command, which --json FILE and a folder follow."""

    name: str
    command: tuple[str, ...]


PEERS = (
    Peer("rdq 0.3.4", ("rdq", "check", "--video-full")),
    Peer("adduct 0.2.2", ("adduct", "scan", "--full")),
    Peer("lerobot-lint 0.1.1", ("lelint", "check")),
)


# A written copy


def write_lerobot(runs: Sequence[DecodedRun], folder: Path) -> None:
    """Runs as a LeRobot dataset of version 3.0, a video of each run and camera; run k is episode k."""
    tasks = sorted({_text(run) for run in runs})
    tables = []
    episodes = []
    start = 0
    for k, run in enumerate(runs):
        tables.append(_rows(run, k, start, tasks.index(_text(run))))
        place = {"dataset_from_index": start, "dataset_to_index": start + len(run)}
        row = {
            "episode_index": k,
            "tasks": [_text(run)],
            "length": len(run),
            **place,
            **_file("data", 0),
        }
        for camera, pictures in run.pictures.items():
            path = folder / VIDEO_PATH.format(video_key=camera, chunk_index=0, file_index=k)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_luma(path, pictures, run.episode.record.fps, crf=18)
            times = {"from_timestamp": 0.0, "to_timestamp": len(run) / run.episode.record.fps}
            row |= _file(f"videos/{camera}", k) | {
                f"videos/{camera}/{key}": time for key, time in times.items()
            }
        episodes.append(row | _file("meta/episodes", 0))
        start += len(run)
    table = pa.concat_tables(tables)
    statistics = jsonable(
        table_stats(table) | {camera: _grey_stats(runs, camera) for camera in runs[0].pictures}
    )
    _write_parquet(folder / DATA_PATH.format(chunk_index=0, file_index=0), table)
    _write_parquet(folder / EPISODES_PATH, pa.Table.from_pylist(episodes))
    _write_parquet(folder / "meta/tasks.parquet", task_table(tasks))
    write_json(folder / "meta/stats.json", statistics)
    write_json(folder / "meta/info.json", _info(runs, table, folder, len(tasks)))


def _text(run: DecodedRun) -> str:
    return run.episode.record.task or ""


def _file(prefix: str, number: int) -> dict[str, int]:
    return {f"{prefix}/chunk_index": 0, f"{prefix}/file_index": number}


def _rows(run: DecodedRun, episode: int, start: int, task: int) -> pa.Table:
    n = len(run)
    times = run.episode.timestamps_s
    vectors = {"observation.state": run.episode.state, "action": run.episode.action}
    columns: dict[str, Any] = {
        name: pa.FixedSizeListArray.from_arrays(
            pa.array(values.astype(np.float32).ravel()), values.shape[1]
        )
        for name, values in vectors.items()
        if values is not None
    }
    columns["timestamp"] = (np.arange(n) / run.fps if times is None else times).astype(np.float32)
    columns |= {"frame_index": np.arange(n), "episode_index": np.full(n, episode)}
    return pa.table(columns | {"index": start + np.arange(n), "task_index": np.full(n, task)})


def _grey_stats(runs: Sequence[DecodedRun], camera: str) -> dict[str, np.ndarray]:
    counts = sum(np.bincount(np.ravel(run.pictures[camera]), minlength=256) for run in runs)
    return image_stats(np.tile(counts, (3, 1)), runs[0].pictures[camera][0].size)


def _info(
    runs: Sequence[DecodedRun], table: pa.Table, folder: Path, num_tasks: int
) -> dict[str, Any]:
    names = {"observation.state": runs[0].episode.states, "action": runs[0].episode.actions}
    features: dict[str, Any] = {}
    for name in table.column_names:
        vector = names.get(name)
        shape = [1]
        dtype = "float32" if name == "timestamp" else "int64"
        if vector is None:
            of_vector = {}
        else:
            of_vector = {"shape": [vector.num_columns], "names": vector.column_names}
        features[name] = {
            "dtype": "float32" if of_vector else dtype,
            "shape": shape,
            "names": None,
        } | of_vector
    for camera, pictures in runs[0].pictures.items():
        info = video_info(folder / VIDEO_PATH.format(video_key=camera, chunk_index=0, file_index=0))
        axes = ["height", "width", "channels"]
        features[camera] = {
            "dtype": "video",
            "shape": [*pictures.shape[1:], 3],
            "names": axes,
            "info": info,
        }
    recipe = Recipe(folder.name, "panda", (), (), (), 1)
    numbered = [
        Run({"fps": round(runs[0].episode.record.fps)}, run.episode.states, 0) for run in runs
    ]
    return dataset_info(recipe, numbered, num_tasks, features)


def _write_parquet(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def spoilt_copies(
    decoded: DecodedSet, seed: int
) -> Iterator[tuple[list[DecodedRun], list[Placed]]]:
    """Two copies of a set, each with half of the PLAIN faults, one in a run; and where these are."""
    by_name = {fault.name: fault for fault in FAULTS}
    names = [*PLAIN, NEAR_COPY, EMPTY_TEXT]
    for half in range(2):
        rng = np.random.default_rng([seed, half])
        runs = list(decoded.runs)
        free = [int(k) for k in rng.permutation(len(decoded.runs))]
        placed = []
        for name in names[half::2]:
            if name != EMPTY_TEXT:
                fault = by_name["copy" if name == NEAR_COPY else name]
            else:
                fault = None
            size = 0.0001 if name == NEAR_COPY else PLAIN.get(name, "")
            spoilt, k = _first_that_can(replace(decoded, runs=runs), fault, size, free, rng)
            free.remove(k)
            check = fault.check if fault and fault.check else "no_task"
            of_fault = {k} if spoilt.partner is None else {k, _place(runs, spoilt.partner)}
            if spoilt.run.index > max(run.index for run in decoded.runs):
                of_fault.add(len(runs))
                runs.append(spoilt.run)
            else:
                runs[k] = spoilt.run
            placed.append(Placed(name, check, frozenset(of_fault)))
        yield runs, placed


def _first_that_can(
    decoded: DecodedSet,
    fault: Fault | None,
    size: float | str,
    free: Sequence[int],
    rng: np.random.Generator,
) -> tuple[Spoilt, int]:
    for k in free:
        spoilt = fault.spoil(decoded, k, size, rng) if fault else _without_text(decoded.runs[k])
        if spoilt is not None:
            return spoilt, k
    raise ValueError(f"no run can have the fault {fault.name if fault else EMPTY_TEXT}")


def _without_text(run: DecodedRun) -> Spoilt:
    record = replace(run.episode.record, task=None, tasks=())
    return Spoilt(replace(run, episode=replace(run.episode, record=record)), 0, len(run))


def _place(runs: Sequence[DecodedRun], index: int) -> int:
    return next(k for k, run in enumerate(runs) if run.index == index)


# What is said of it


def environment(folder: Path) -> Path:
    """The programs of the other checkers, which are installed once."""
    programs = folder / "bin"
    if not (programs / "lelint").exists():
        venv.create(folder, with_pip=True)
        subprocess.run([str(programs / "pip"), "install", "--quiet", *VERSIONS], check=True)
    return programs


# Runs a program in a process so small that the peak is the program's own
MEASURED = """
import json, resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([done.stdout, done.stderr, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))
"""


def ran(*command: str) -> tuple[str, str, float, float]:
    """What a program printed, to stdout and stderr, its CPU seconds and its peak memory in MB."""
    words = [sys.executable, "-c", MEASURED, *command]
    process = subprocess.run(
        words, cwd=ROOT, env=own_code_first(), capture_output=True, text=True, check=True
    )
    stdout, stderr, cpu_s, peak_mb = json.loads(process.stdout)
    return stdout, stderr, cpu_s, peak_mb


def said_by_peer(report: Any, num_episodes: int, words: str = "") -> set[tuple[int, str]]:
    """What a report says of single episodes, as (episode, kind of fault); what it says of many at once is of none."""
    if isinstance(report, list):
        return set().union(*(said_by_peer(item, num_episodes, words) for item in report))
    if not isinstance(report, dict):
        return set()
    words = next((str(report[key]) for key in KINDS if report.get(key)), words)
    named_pairs = set[tuple[int, str]]()
    for key, value in report.items():
        named_pairs |= said_by_peer(value, num_episodes, words)
        numbers = _episodes(value) if key in EPISODES else []
        if len(numbers) <= MANY * num_episodes:
            named_pairs |= {(number, words) for number in numbers}
    return named_pairs


def _episodes(value: Any) -> list[int]:
    """The episodes' numbers in a field of a report, such as 3, [3, 7] or ["episode_000003"]."""
    values = value if isinstance(value, list) else [value]
    texts = [
        str(number)
        for number in values
        if isinstance(number, int | str) and not isinstance(number, bool)
    ]
    return [int(match[1]) for text in texts if (match := re.fullmatch(r"(?:episode_)?(\d+)", text))]


def said_by_us(folder: Path) -> tuple[set[tuple[int, str]], float, float]:
    """What `inspect --full` says of single episodes, as (episode, reason); CPU seconds and peak MB."""
    command = [sys.executable, "-m", "proccorpus", "inspect", str(folder), "--full", "--json"]
    stdout, _, cpu_s, peak_mb = ran(*command)
    findings = json.loads(stdout)["findings"]
    return (
        {(f["episode_index"], f["reason"]) for f in findings if f["episode_index"] is not None},
        cpu_s,
        peak_mb,
    )


def peer_rows(decoded: DecodedSet, seed: int, cache_folder: Path) -> list[list[str]]:
    """For each fault who says anything new of its run; then what each says of the copy without faults, and its cost."""
    programs = environment(cache_folder / "peers")
    with TemporaryDirectory(prefix="proccorpus-trial-") as temporary:
        clean = Path(temporary) / "clean"
        write_lerobot(decoded.runs, clean)
        checkers = {"ours": said_by_us} | {
            peer.name: partial(_peer_says, peer, programs) for peer in PEERS
        }
        usual_result = {name: checker(clean) for name, checker in checkers.items()}
        rows = []
        num_named = dict.fromkeys(checkers, 0)
        for half, (runs, placed) in enumerate(spoilt_copies(decoded, seed)):
            folder = Path(temporary) / f"spoilt{half}"
            write_lerobot(runs, folder)
            new = {
                name: checker(folder)[0] - usual_result[name][0]
                for name, checker in checkers.items()
            }
            for fault in placed:
                kinds = {name: fault.kinds(new[name], is_ours=name == "ours") for name in checkers}
                quoted = {name: [f"`{kind}`" for kind in kinds[name]] for name in checkers}
                rows.append([fault.name, *map(", ".join, quoted.values())])
                num_named = {name: count + bool(kinds[name]) for name, count in num_named.items()}
    rows.append(["named", *(f"{num_named[name]} of {len(rows)}" for name in checkers)])
    suspected = []
    for faults, *_ in usual_result.values():
        suspected.append(str(len({episode for episode, _ in faults})))
    rows.append(["runs of which something is said without a fault", *suspected])
    rows.append(
        [
            "CPU s, peak MB, without a fault",
            *(f"{usual_result[n][1]:.1f}, {usual_result[n][2]:.0f}" for n in usual_result),
        ]
    )
    return rows


def _peer_says(
    peer: Peer, programs: Path, folder: Path
) -> tuple[set[tuple[int, str]], float, float]:
    report = folder.parent / f"{folder.name}.json"
    program, *words = peer.command
    _, stderr, cpu_s, peak_mb = ran(
        str(programs / program), *words, "--json", str(report), str(folder)
    )
    if not report.exists():
        raise RuntimeError(f"{peer.name} wrote no report: {stderr[-500:]}")
    report_json = json.loads(report.read_text())
    report.unlink()
    num_episodes = json.loads((folder / "meta/info.json").read_text())["total_episodes"]
    return said_by_peer(report_json, num_episodes), cpu_s, peak_mb
