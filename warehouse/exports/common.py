"""What all exports have in common: which episodes, from which state of the lake, and a folder that is resumed.

An export is a pure function of a snapshot of the lake, a selection and options. Its folder keeps a journal of finished
parts; what a kill left half-written is deleted at the next try, so a resumed export has the bytes of one that ran
through. `manifest.json` is written last: where it is, the export is whole.
"""

import fcntl
import json
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from core.errors import UserError
from core.files import sha256_file, write_file
from core.tables import SPLITS
from ingest.episode import EpisodeRecord, record_from_row
from ingest.registry import DatasetConfig
from ingest.sources.files import Source, cache_folder
from warehouse.lake import Lake, content_key
from warehouse.lake.sql import open_for_users, query
from warehouse.releases import get_release
from warehouse.releases.contents import held_episodes_sql
from warehouse.releases.licences import classify
from warehouse.releases.takedown import taken_down

MANIFEST, JOURNAL = "manifest.json", "manifest.partial.jsonl"
FORMAT = 1  # of manifest and journal
QUERY_WORDS = ("select ", "with ", "from ", "(select ")

EPISODES_SQL = """
    SELECT e.dataset, e.episode_index, e.chunk, e.source_id, e.task, e.tasks, e.num_frames, e.fps, e.cameras,
           e.success, e.content_hash, s.split, a.label_run, a.why AS label_why
    FROM episodes e LEFT JOIN splits s USING (dataset, episode_index)
    LEFT JOIN active_runs a USING (dataset, episode_index) WHERE e.status = 'ok'"""


class ExportError(UserError):
    """An export that cannot be made: what, and what to do."""


@dataclass(frozen=True)
class Selection:
    """Which episodes; each condition narrows. Empty means all.

    `where`: a condition over the columns of EPISODES_SQL, or a whole query that gives (dataset, episode_index).
    `allow`: licences that are not open and yet in order, as for releases.
    """

    release: str | None = None
    datasets: tuple[str, ...] = ()
    episodes: tuple[int, ...] | None = None
    splits: tuple[str, ...] = ()
    where: str | None = None
    allow: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExportEpisode:
    """One episode and what is known of it; `label_run` None: nobody labelled it."""

    dataset: str
    episode_index: int
    chunk: int
    source_id: str
    task: str | None
    tasks: tuple[str, ...]
    num_frames: int
    fps: float
    cameras: tuple[str, ...]
    success: bool | None
    content_hash: str | None
    split: str | None
    label_run: str | None
    label_why: str | None

    @property
    def key(self) -> tuple[str, int]:
        return self.dataset, self.episode_index


def export_episode(row: Mapping[str, Any]) -> ExportEpisode:
    """Of a row of EPISODES_SQL."""
    return ExportEpisode(**{**row, **{n: tuple(row[n] or ()) for n in ("tasks", "cameras")}})


@dataclass(frozen=True)
class Selected:
    """The episodes of a selection in order of (dataset, episode_index), and the lake as it was at `snapshot`.

    The lake's connection has them as the temporary table `selected` (dataset, episode_index), too.

    `left_out` says in sentences what was selected and must not be given on. `content` is the release's hash.
    """

    lake: Lake = field(repr=False)
    selection: Selection
    snapshot: int
    content: str | None
    episodes: tuple[ExportEpisode, ...]
    left_out: tuple[str, ...]
    licences: Mapping[str, str | None]

    @property
    def datasets(self) -> list[str]:
        return sorted({e.dataset for e in self.episodes})

    def chunks(self) -> Iterator[tuple[str, int, list[ExportEpisode]]]:
        """(dataset, chunk, its episodes), in order."""
        found: dict[tuple[str, int], list[ExportEpisode]] = {}
        for e in self.episodes:
            found.setdefault((e.dataset, e.chunk), []).append(e)
        for (dataset, chunk), episodes in found.items():
            yield dataset, chunk, episodes

    def identity(self, kind: str, options: Any) -> str:
        """What the bytes of an export depend on, hashed."""
        episodes = [[e.dataset, e.episode_index, e.label_run, e.content_hash] for e in self.episodes]
        parts = [kind, FORMAT, self.snapshot, asdict(self.selection), asdict(options), episodes]
        return content_key(json.dumps(parts, sort_keys=True, default=str))

    def facts(self) -> dict[str, Any]:
        """The part of the manifest that says where the data came from."""
        runs = sorted({e.label_run for e in self.episodes if e.label_run})
        counts = [
            {
                "dataset": d,
                "license": self.licences.get(d),
                "episodes": sum(e.dataset == d for e in self.episodes),
                "frames": sum(e.num_frames for e in self.episodes if e.dataset == d),
                "labelled_episodes": sum(e.dataset == d and e.label_run is not None for e in self.episodes),
            }
            for d in self.datasets
        ]
        return {
            "release": self.selection.release,
            "snapshot": self.snapshot,
            "content": self.content,
            "selection": asdict(self.selection),
            "datasets": counts,
            "label_runs": label_runs(self.lake, runs),
            "left_out": list(self.left_out),
        }


@dataclass(frozen=True)
class Exported:
    """What an export is; `again`: it was there already, whole, and nothing was done. `samples`: None where none are."""

    kind: str
    out: str
    episodes: int
    frames: int
    files: int
    bytes: int
    again: bool
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    samples: int | None = None


# Which episodes


def select(lake: Lake, selection: Selection) -> Selected:
    """The episodes to export: usable, not taken down, of an allowed licence.

    Raises ExportError, SqlError, ReleaseError. Of a release those that it holds, as it froze them; else of the lake as
    it is now, which is then read at this snapshot whatever is built meanwhile.
    """
    release = get_release(lake, selection.release) if selection.release else None
    snapshot = release.snapshot if release else lake.snapshot()
    then = Lake(lake.workspace, read_only=True, snapshot=snapshot)
    rows = then.dicts(f"{EPISODES_SQL} ORDER BY dataset, episode_index")
    if release:
        shards = [s.shard for s in release.shard_list]
        held = set(then.rows(held_episodes_sql(), [shards]))
        rows = [r for r in rows if (r["dataset"], r["episode_index"]) in held]
    _check_names(selection, {r[0] for r in then.rows("SELECT dataset FROM datasets")})
    wanted = _asked_for(lake, selection, snapshot)
    rows = [r for r in rows if _is_wanted(r, selection, wanted)]
    licences = dict(then.rows("SELECT dataset, license FROM datasets"))
    kept, left_out = _allowed(lake, rows, licences, selection.allow)
    if not kept:
        why = ". ".join(left_out) or "no usable episode fits the selection (proccorpus sql 'FROM episodes' lists them)"
        raise ExportError(f"nothing to export: {why}")
    episodes = tuple(map(export_episode, kept))
    keys = pa.table({n: [r[n] for r in kept] for n in ("dataset", "episode_index")})
    then.con.register("selected_keys", keys)
    then.con.execute("CREATE TEMP TABLE selected AS FROM selected_keys")
    then.con.unregister("selected_keys")
    return Selected(
        then, selection, snapshot, release.config_hash if release else None, episodes, tuple(left_out), licences
    )


def _check_names(selection: Selection, known: Collection[str]) -> None:
    for name in selection.datasets:
        if name not in known:
            raise ExportError(f"the corpus has no dataset {name!r}; it has {', '.join(sorted(known)) or 'none yet'}")
    for split in selection.splits:
        if split not in SPLITS:
            raise ExportError(f"there is no split {split!r}; splits are {', '.join(SPLITS)}")
    if selection.episodes is not None and len(selection.datasets) != 1:
        raise ExportError("a list of episodes goes with one dataset: name it with --dataset")


def _asked_for(lake: Lake, selection: Selection, snapshot: int) -> set[tuple[str, int]] | None:
    """What `where` gives; None where there is none."""
    if selection.where is None:
        return None
    text = selection.where.strip().rstrip(";")
    whole = text.lower().startswith(QUERY_WORDS)
    sql = text if whole else f"SELECT dataset, episode_index FROM ({EPISODES_SQL}) WHERE ({text})"
    con = open_for_users(lake.workspace, snapshot)
    try:
        table = query(con, sql)
    finally:
        con.close()
    missing = {"dataset", "episode_index"} - set(table.schema.names)
    if missing:
        raise ExportError(f"--where must give the columns dataset and episode_index; it gives {table.schema.names}")
    return set(zip(table["dataset"].to_pylist(), table["episode_index"].to_pylist(), strict=True))


def _is_wanted(row: Mapping[str, Any], selection: Selection, wanted: set[tuple[str, int]] | None) -> bool:
    return (
        (not selection.datasets or row["dataset"] in selection.datasets)
        and (selection.episodes is None or row["episode_index"] in selection.episodes)
        and (not selection.splits or row["split"] in selection.splits)
        and (wanted is None or (row["dataset"], row["episode_index"]) in wanted)
    )


def _allowed(
    lake: Lake, rows: Sequence[dict], licences: Mapping[str, str | None], allow: Collection[str]
) -> tuple[list[dict], list[str]]:
    """Rows that may be given on, and sentences about those that may not; marks of takedown are those of today."""
    down, kept, left_out = taken_down(lake), [], []
    for dataset in dict.fromkeys(r["dataset"] for r in rows):
        here = [r for r in rows if r["dataset"] == dataset]
        licence, marked = classify(licences.get(dataset)), down.get(dataset, frozenset())
        if not licence.allowed(allow):
            stated = licences.get(dataset) or "none is stated"
            left_out.append(f"{dataset}: its licence is {licence.kind} ({stated}); to let it in: {licence.flag}")
            continue
        gone = [r["episode_index"] for r in here if marked is None or r["episode_index"] in marked]
        if gone:
            which = "all of it" if marked is None else f"episodes {', '.join(map(str, gone))}"
            left_out.append(f"{dataset}: {which} taken down")
        kept += [r for r in here if r["episode_index"] not in set(gone)]
    return kept, left_out


def label_runs(lake: Lake, runs: Sequence[str]) -> list[dict[str, Any]]:
    """What the manifest says of label runs."""
    return lake.dicts(
        "SELECT label_run, annotator, model, model_revision, prompt_version, code_version, params FROM label_runs "
        "WHERE list_contains(?, label_run) ORDER BY 1",
        [list(runs)],
    )


# Sources of episodes


def open_source(selected: Selected, dataset: str) -> Source:
    """The source that a dataset was built from, to read only. Raises ExportError, SourceError."""
    rows = selected.lake.rows("SELECT config FROM build_configs WHERE dataset = ?", [dataset])
    if not rows:
        raise ExportError(f"the lake does not say what {dataset} was built from: build it again")
    config = DatasetConfig(**json.loads(rows[0][0])["dataset"])
    return Source(config, None, cache_folder(selected.lake.workspace.sources, config))


def records(selected: Selected, dataset: str, chunk: int) -> dict[int, EpisodeRecord]:
    """Records of a chunk's episodes, for `ingest.source.read_episode`."""
    rows = selected.lake.dicts("SELECT * FROM episode_facts WHERE dataset = ? AND chunk = ?", [dataset, chunk])
    return {r["episode_index"]: record_from_row(r) for r in rows}


# The folder


class ExportFolder:
    """The folder of an export; its parts are files that were finished together.

    A part's files may be written in place: what the journal does not name is deleted when the export is resumed.
    """

    def __init__(self, root: Path, kind: str, identity: str) -> None:
        self.root, self.kind, self.identity = root, kind, identity
        self.parts: dict[str, dict[str, Any]] = {}
        self.manifest: dict[str, Any] | None = None  # of an export that is whole already

    def path(self, name: str) -> Path:
        """Where a file goes; its folder is made."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def done(self, part: str) -> dict[str, Any] | None:
        """The facts noted with a finished part; None for one that is to be made."""
        return self.parts[part]["facts"] if part in self.parts else None

    def finish_part(self, part: str, names: Sequence[str], facts: Mapping[str, Any] | None = None) -> None:
        """Note a part as finished with its files, and facts that resuming needs (JSON)."""
        files = [
            {"path": n, "bytes": (self.root / n).stat().st_size, "sha256": sha256_file(self.root / n)}
            for n in sorted(names)
        ]
        line = {"part": part, "files": files, "facts": dict(facts or {})}
        with (self.root / JOURNAL).open("a") as f:
            fcntl.flock(f, fcntl.LOCK_EX)  # others may write other parts
            f.write(json.dumps(line) + "\n")
        self.parts[part] = json.loads(json.dumps(line))

    def finish(self, selected: Selected, options: Any, facts: Mapping[str, Any] | None = None) -> Exported:
        """Write the manifest; from then on the export is whole. `facts`: more for the manifest, such as notes."""
        files = sorted((f for p in self.parts.values() for f in p["files"]), key=lambda f: f["path"])
        self.manifest = {
            "format": FORMAT,
            "export": self.kind,
            "identity": self.identity,
            "options": asdict(options),
            **selected.facts(),
            "episodes": len(selected.episodes),
            "frames": sum(e.num_frames for e in selected.episodes),
            **(facts or {}),
            "files": files,
        }
        text = json.dumps(self.manifest, indent=1, sort_keys=True, ensure_ascii=False, default=str)
        write_file(self.root / MANIFEST, text.encode() + b"\n")
        (self.root / JOURNAL).unlink(missing_ok=True)
        return self.exported(again=False)

    def exported(self, *, again: bool = True) -> Exported:
        """What the whole export is, by its manifest."""
        assert self.manifest is not None
        m = self.manifest
        size = sum(f["bytes"] for f in m["files"])
        lists = tuple(m["left_out"]), tuple(m.get("notes", ()))
        counts = m["episodes"], m["frames"], len(m["files"]) + 1, size
        return Exported(self.kind, str(self.root), *counts, again, *lists, samples=m.get("samples"))


def join_folder(out: Path, kind: str, identity: str) -> ExportFolder:
    """The folder of an export that `open_folder` began, to write parts of beside others that write other ones.

    What a kill left half-written stays, until it is written again or the folder is opened. Raises ExportError.
    """
    folder = ExportFolder(out, kind, identity)
    there = _what_is_there(out)
    if there.get("identity") != identity:
        raise ExportError(f"{out} does not hold the export that this is a part of: begin it again")
    if "files" in there:
        folder.manifest = there
    else:
        _read_journal(folder)
    return folder


def open_folder(out: Path, kind: str, identity: str, overwrite: bool = False) -> ExportFolder:
    """A folder to export to: new, empty, or with the same export, whole or broken off. Raises ExportError.

    `overwrite` deletes an export that is there, also the same one when it is whole; a folder with things that are no
    export is never touched.
    """
    folder = ExportFolder(out, kind, identity)
    if out.exists() and not out.is_dir():
        raise ExportError(f"{out} is a file: an export goes to a folder")
    there = _what_is_there(out)
    if there.get("identity") == identity:
        if "files" not in there:
            _resume(folder)
            return folder
        if not overwrite:
            _check_whole(out, there)
            folder.manifest = there
            (out / JOURNAL).unlink(missing_ok=True)
            return folder
    if out.exists() and any(out.iterdir()):
        if not there:
            raise ExportError(f"{out} is not empty, and what it holds is no export: choose another folder")
        if not overwrite:
            raise ExportError(
                f"{out} holds another export ({there.get('export')}): choose another folder, or --overwrite it"
            )
        _empty(out, keep=())
    out.mkdir(parents=True, exist_ok=True)
    head = {"format": FORMAT, "export": kind, "identity": identity}
    write_file(out / JOURNAL, json.dumps(head, sort_keys=True).encode() + b"\n")
    return folder


def _check_whole(out: Path, manifest: Mapping[str, Any]) -> None:
    for file in manifest["files"]:
        if not _has(out, file):
            raise ExportError(
                f"{out / file['path']} is missing or has changed since the export: --overwrite makes it anew"
            )


def _what_is_there(out: Path) -> dict[str, Any]:
    """A manifest, or the head of a journal; empty where there is neither."""
    for name in (MANIFEST, JOURNAL):
        try:
            text = (out / name).read_text()
            found = json.loads(text if name == MANIFEST else text.split("\n", 1)[0])
        except (OSError, ValueError):
            continue
        if isinstance(found, dict) and {"export", "identity"} <= found.keys():
            return found
    return {}


def _resume(folder: ExportFolder) -> None:
    """Read the journal, drop the line that a kill cut, and delete files that it does not name."""
    whole = _read_journal(folder)
    write_file(folder.root / JOURNAL, ("\n".join(whole) + "\n").encode())
    _empty(folder.root, keep={JOURNAL, *(f["path"] for p in folder.parts.values() for f in p["files"])})


def _read_journal(folder: ExportFolder) -> list[str]:
    """Take over the finished parts; returns the lines that say so, the head first."""
    head, *lines = (folder.root / JOURNAL).read_text().split("\n")
    whole = [head]
    for line in lines:
        try:
            part = json.loads(line)
        except ValueError:
            continue
        if all(_has(folder.root, f) for f in part["files"]):
            folder.parts[part["part"]] = part
            whole.append(line)
    return whole


def _has(root: Path, file: Mapping[str, Any]) -> bool:
    path = root / file["path"]
    return path.is_file() and path.stat().st_size == file["bytes"]


def _empty(root: Path, keep: Collection[str]) -> None:
    if not keep:
        for path in root.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        return
    for path in sorted(root.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.relative_to(root).as_posix() not in keep:
            path.unlink()
