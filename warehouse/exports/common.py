"""Shared by all exports: the choice of episodes, the state of the lake, and a folder that can be resumed.

An export is a pure function of a snapshot of the lake, a selection and options. Its folder keeps a journal of finished
parts; what a kill left half-written is deleted at the next try, so a resumed export has the bytes of one that ran
through. `manifest.json` is written last: where it is, the export is whole.
"""

import fcntl
import json
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow as pa

from annotate.label_gate import GateCounts, LabelGate
from core.errors import UserError
from core.files import sha256_file, write_file
from core.tables import SPLITS
from ingest.episode import EpisodeRecord, record_from_row
from ingest.registry import DatasetConfig
from ingest.sources.files import Source, cache_folder
from warehouse.exports.options import KindOptions, Selection
from warehouse.lake import Lake, content_key
from warehouse.lake.labels import dataset_gates
from warehouse.releases import Release, get_release
from warehouse.releases.contents import held_episodes_sql
from warehouse.releases.licences import classify
from warehouse.releases.takedown import taken_down
from warehouse.sql_process import LakeState, SqlProcess

MANIFEST, JOURNAL = "manifest.json", "manifest.partial.jsonl"
FORMAT = 1  # of manifest and journal
QUERY_WORDS = ("select ", "with ", "from ", "(select ")
WHERE_MEMORY, WHERE_S = "4GB", 600.0  # of a user's condition on episodes

EPISODES_SQL = """
    SELECT e.dataset, e.episode_index, e.chunk, e.source_id, e.task, e.tasks, e.num_frames, e.fps, e.cameras,
           e.success, e.content_hash, s.split, a.label_run, a.why AS label_why, COLUMNS('^(confidence|named)$')
    FROM episodes e LEFT JOIN splits s USING (dataset, episode_index)
    LEFT JOIN active_runs a USING (dataset, episode_index)
    LEFT JOIN episode_labels l
      ON l.dataset = e.dataset AND l.episode_index = e.episode_index AND l.label_run = a.label_run
    WHERE e.status = 'ok'"""


class ExportError(UserError):
    """An export that cannot be made: what, and what to do."""


@dataclass(frozen=True)
class ExportEpisode:
    """One episode and what is known of it; `label_run` None: nobody labelled it, or the label is not sure enough.

    `confidence` of its label, 0..1; `named`: has every step of it a name? `sure_of_names`: is it sure enough of them?
    `is_unsure`: there is a label, and it is not sure enough to count.
    """

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
    confidence: float | None = None
    named: bool | None = None
    sure_of_names: bool = True
    is_unsure: bool = False

    @property
    def key(self) -> tuple[str, int]:
        return self.dataset, self.episode_index


def export_episode(row: Mapping[str, Any]) -> ExportEpisode:
    """Of a row of EPISODES_SQL."""
    lists = {name: tuple(row[name] or ()) for name in ("tasks", "cameras")}
    return ExportEpisode(**{**row, **lists})


def _as_sure(episode: ExportEpisode, gate: LabelGate) -> ExportEpisode:
    """The episode with what of its label is sure enough."""
    if episode.label_run is None:
        return episode
    if not gate.admits(episode.confidence):
        return replace(episode, label_run=None, label_why=None, is_unsure=True)
    return replace(episode, sure_of_names=gate.admits_names(episode.confidence, named=True))


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
    gates: Mapping[str, LabelGate] = field(default_factory=dict)

    @property
    def datasets(self) -> list[str]:
        return sorted({e.dataset for e in self.episodes})

    def chunks(self) -> Iterator[tuple[str, int, list[ExportEpisode]]]:
        """(dataset, chunk, its episodes), in order."""
        by_chunk: dict[tuple[str, int], list[ExportEpisode]] = {}
        for e in self.episodes:
            by_chunk.setdefault((e.dataset, e.chunk), []).append(e)
        for (dataset, chunk), episodes in by_chunk.items():
            yield dataset, chunk, episodes

    def identity(self, kind: str, options: KindOptions) -> str:
        """What the bytes of an export depend on, hashed."""
        episodes = [[e.dataset, e.episode_index, e.label_run, e.content_hash] for e in self.episodes]
        parts = [kind, FORMAT, self.snapshot, self.selection.model_dump(), options.stated(), episodes]
        return content_key(json.dumps(parts, sort_keys=True, default=str))

    def facts(self) -> dict[str, Any]:
        """The part of the manifest that says where the data came from."""
        return {
            "release": self.selection.release,
            "snapshot": self.snapshot,
            "content": self.content,
            "selection": self.selection.model_dump(),
            "datasets": [self._dataset_facts(dataset) for dataset in self.datasets],
            "label_runs": label_runs(self.lake, self.active_runs),
            "left_out": list(self.left_out),
        }

    @property
    def active_runs(self) -> list[str]:
        """The label runs of the episodes' active labels, in order."""
        return sorted({e.label_run for e in self.episodes if e.label_run})

    def _dataset_facts(self, dataset: str) -> dict[str, Any]:
        episodes = [e for e in self.episodes if e.dataset == dataset]
        return {
            "dataset": dataset,
            "license": self.licences.get(dataset),
            "episodes": len(episodes),
            "frames": sum(e.num_frames for e in episodes),
            "labelled_episodes": sum(e.label_run is not None for e in episodes),
            **asdict(self.gates.get(dataset, LabelGate())),
            **self._counts(dataset).numbers(),
        }

    def _counts(self, dataset: str) -> GateCounts:
        """Of its labels, those that are left out as a whole, too."""
        labels = [e for e in self.episodes if e.dataset == dataset and (e.label_run is not None or e.is_unsure)]
        gate = self.gates.get(dataset, LabelGate())
        return GateCounts(gate, [(e.confidence, e.named is not False) for e in labels])

    def label_notes(self) -> list[str]:
        """How many labels are left out, or give no names of steps, and why, in sentences."""
        return [f"{dataset}: {text}" for dataset in self.datasets for text in self._counts(dataset).sentences()]


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
    if release:
        selection = selection.model_copy(update={"release": release.name})
    snapshot = release.snapshot if release else lake.snapshot()
    # Everything that is exported is read at this one snapshot, so a build meanwhile changes nothing
    then = Lake(lake.workspace, read_only=True, snapshot=snapshot)
    _check_names(selection, {name for (name,) in then.rows("SELECT dataset FROM datasets")})

    # The episodes that were asked for, less those that must not be given on
    asked = _asked_for(then, selection, release, snapshot)
    licences = dict(then.rows("SELECT dataset, license FROM datasets"))
    rows, left_out = _allowed(lake, asked, licences, selection.allow)
    if not rows:
        why = ". ".join(left_out) or "no usable episode fits the selection (proccorpus sql 'FROM episodes' lists them)"
        raise ExportError(f"nothing to export: {why}")

    # A temporary table of the episodes, which later queries join instead of carrying a list of keys
    _create_selected(then, rows)
    content = release.config_hash if release else None
    gates = dataset_gates(then.con, selection.min_confidence, selection.min_name_confidence)
    episodes = tuple(_as_sure(e, gates.get(e.dataset, LabelGate())) for e in map(export_episode, rows))
    return Selected(then, selection, snapshot, content, episodes, tuple(left_out), licences, gates)


def select_episode(lake: Lake, dataset: str, episode_index: int) -> Selected:
    """One usable episode, to look at: of any licence, of the state that the connection reads. Raises ExportError."""
    rows = lake.dicts(
        f"SELECT * FROM ({EPISODES_SQL}) WHERE dataset = ? AND episode_index = ?", [dataset, episode_index]
    )
    if not rows:
        raise ExportError(f"{dataset} {episode_index} cannot be used, so nothing of it is exported")
    licences = dict(lake.rows("SELECT dataset, license FROM datasets WHERE dataset = ?", [dataset]))
    selection = Selection(datasets=(dataset,), episodes=(episode_index,))
    return Selected(lake, selection, lake.snapshot(), None, (export_episode(rows[0]),), (), licences)


def _asked_for(lake: Lake, selection: Selection, release: Release | None, snapshot: int) -> list[dict]:
    """Rows of EPISODES_SQL that fit the selection, in order of (dataset, episode_index)."""
    rows = lake.dicts(f"{EPISODES_SQL} ORDER BY dataset, episode_index")
    rows = [row for row in rows if _fits(row, selection)]
    if release is not None:
        shards = [s.shard for s in release.shard_list]
        rows = _among(rows, set(lake.rows(held_episodes_sql(), [shards])))
    if selection.where is not None:
        rows = _among(rows, _episodes_where(lake, selection.where, snapshot))
    return rows


def _create_selected(lake: Lake, rows: Sequence[Mapping[str, Any]]) -> None:
    """The temporary table `selected` of the lake's connection."""
    keys = pa.table({name: [row[name] for row in rows] for name in ("dataset", "episode_index")})
    lake.con.register("selected_keys", keys)
    lake.con.execute("CREATE TEMP TABLE selected AS FROM selected_keys")
    lake.con.unregister("selected_keys")


def _check_names(selection: Selection, datasets: Collection[str]) -> None:
    for name in selection.datasets:
        if name not in datasets:
            there = ", ".join(sorted(datasets)) or "none yet"
            raise ExportError(f"the corpus has no dataset {name!r}; it has {there}")
    for split in selection.splits:
        if split not in SPLITS:
            raise ExportError(f"there is no split {split!r}; splits are {', '.join(SPLITS)}")
    if selection.episodes is not None and len(selection.datasets) != 1:
        raise ExportError("a list of episodes goes with one dataset: name it with --dataset")


def _fits(row: Mapping[str, Any], selection: Selection) -> bool:
    """Does an episode fit the conditions on dataset, number and split?"""
    if selection.datasets and row["dataset"] not in selection.datasets:
        return False
    if selection.episodes is not None and row["episode_index"] not in selection.episodes:
        return False
    return not selection.splits or row["split"] in selection.splits


def _among(rows: Sequence[dict], keys: Collection[tuple[str, int]]) -> list[dict]:
    return [row for row in rows if (row["dataset"], row["episode_index"]) in keys]


def _episodes_where(lake: Lake, where: str, snapshot: int) -> set[tuple[str, int]]:
    """(dataset, episode_index) of the episodes that a user's condition or query gives."""
    text = where.strip().rstrip(";")
    is_query = text.lower().startswith(QUERY_WORDS)
    sql = text if is_query else f"SELECT dataset, episode_index FROM ({EPISODES_SQL}) WHERE ({text})"
    with SqlProcess(WHERE_MEMORY) as process:
        table = process.query(LakeState(str(lake.workspace.root), snapshot), sql, WHERE_S)
    names = table.schema.names
    if not {"dataset", "episode_index"} <= set(names):
        raise ExportError(f"--where must give the columns dataset and episode_index; it gives {names}")
    return set(zip(table["dataset"].to_pylist(), table["episode_index"].to_pylist(), strict=True))


def _allowed(
    lake: Lake, rows: Sequence[dict], licences: Mapping[str, str | None], allow: Collection[str]
) -> tuple[list[dict], list[str]]:
    """Rows that may be given on, and sentences about those that may not; marks of takedown are those of today."""
    down = taken_down(lake)
    allowed: list[dict] = []
    left_out: list[str] = []
    # rows stand in order of their datasets
    for dataset, group in groupby(rows, key=itemgetter("dataset")):
        here = list(group)
        licence = classify(licences.get(dataset))
        if not licence.allowed(allow):
            stated = licences.get(dataset) or "none is stated"
            left_out.append(f"{dataset}: its licence is {licence.kind} ({stated}); to let it in: {licence.flag}")
            continue
        marked = down.get(dataset, frozenset())
        if marked is None:
            left_out.append(f"{dataset}: all of it taken down")
            continue
        allowed += [row for row in here if row["episode_index"] not in marked]
        gone = [str(row["episode_index"]) for row in here if row["episode_index"] in marked]
        if gone:
            left_out.append(f"{dataset}: episodes {', '.join(gone)} taken down")
    return allowed, left_out


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
    build = json.loads(rows[0][0])
    config = DatasetConfig(**build["dataset"])
    return Source(config, None, cache_folder(selected.lake.workspace.sources, config), build.get("commit"))


def records(selected: Selected, dataset: str, chunk: int) -> dict[int, EpisodeRecord]:
    """Records of a chunk's episodes, for `ingest.source.read_episode`."""
    rows = selected.lake.dicts("SELECT * FROM episode_facts WHERE dataset = ? AND chunk = ?", [dataset, chunk])
    return {row["episode_index"]: record_from_row(row) for row in rows}


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

    def finish(self, selected: Selected, options: KindOptions, facts: Mapping[str, Any] | None = None) -> Exported:
        """Write the manifest; from then on the export is whole. `facts`: more for the manifest, such as notes."""
        # Sorted: the parts may have been finished in any order, and the manifest has to have equal bytes
        files = sorted((f for p in self.parts.values() for f in p["files"]), key=lambda f: f["path"])
        self.manifest = {
            "format": FORMAT,
            "export": self.kind,
            "identity": self.identity,
            "options": options.stated(),
            **selected.facts(),
            "episodes": len(selected.episodes),
            "frames": sum(e.num_frames for e in selected.episodes),
            **(facts or {}),
            "files": files,
        }
        text = json.dumps(self.manifest, indent=1, sort_keys=True, ensure_ascii=False, default=str)
        # The manifest, then the journal goes: a kill in between leaves a whole export with a journal too many
        write_file(self.root / MANIFEST, text.encode() + b"\n")
        (self.root / JOURNAL).unlink(missing_ok=True)
        return self.exported(again=False)

    def exported(self, *, again: bool = True) -> Exported:
        """What the whole export is, by its manifest."""
        assert self.manifest is not None
        m = self.manifest
        return Exported(
            kind=self.kind,
            out=str(self.root),
            episodes=m["episodes"],
            frames=m["frames"],
            files=len(m["files"]) + 1,  # with the manifest
            bytes=sum(f["bytes"] for f in m["files"]),
            again=again,
            left_out=tuple(m["left_out"]),
            notes=tuple(m.get("notes", ())),
            samples=m.get("samples"),
        )


def join_folder(out: Path, kind: str, identity: str) -> ExportFolder:
    """The folder of an export that `open_folder` began, to write parts of beside others that write other ones.

    What a kill left half-written stays, until it is written again or the folder is opened. Raises ExportError.
    """
    folder = ExportFolder(out, kind, identity)
    head = _manifest_or_head(out)
    if head.get("identity") != identity:
        raise ExportError(f"{out} does not hold the export that this is a part of: begin it again")
    if "files" in head:
        folder.manifest = head
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
    head = _manifest_or_head(out)
    is_same, is_whole = head.get("identity") == identity, "files" in head

    # The same export: go on with it, or find it done
    if is_same and not is_whole:
        _resume(folder)
        return folder
    if is_same and not overwrite:
        _check_whole(out, head)
        folder.manifest = head
        (out / JOURNAL).unlink(missing_ok=True)
        return folder

    # A new one: its journal comes first, so that a broken export is known for one
    if out.exists() and any(out.iterdir()):
        _clear(out, head, overwrite)
    out.mkdir(parents=True, exist_ok=True)
    line = {"format": FORMAT, "export": kind, "identity": identity}
    write_file(out / JOURNAL, json.dumps(line, sort_keys=True).encode() + b"\n")
    return folder


def is_same_file(
    out: Path, identity: str, overwrite: bool, identity_in: Callable[[Path], str | None], *, example: str
) -> bool:
    """Is the file `out` this very export, so that nothing is to be done?

    `identity_in` reads the identity of the export in a file; None where it has none. `example` is a name for a file.
    Raises ExportError for a folder, and for another file, which may hold a person's work, unless it is an export that
    `overwrite` replaces.
    """
    if out.is_dir():
        raise ExportError(f"{out} is a folder: give a file, such as {out / example}")
    if not out.exists():
        return False
    found = identity_in(out)
    if found is None:
        raise ExportError(f"{out} is there already, and is no export of ours: choose another file")
    if found != identity and not overwrite:
        raise ExportError(f"{out} holds another export: choose another file, or --overwrite it")
    return not overwrite


def _clear(out: Path, head: Mapping[str, Any], overwrite: bool) -> None:
    """Empty a folder for a new export. Raises ExportError unless it holds an export that may go."""
    if not head:
        raise ExportError(f"{out} is not empty, and what it holds is no export: choose another folder")
    if not overwrite:
        other = head.get("export")
        raise ExportError(f"{out} holds another export ({other}): choose another folder, or --overwrite it")
    _empty(out)


def _check_whole(out: Path, manifest: Mapping[str, Any]) -> None:
    for file in manifest["files"]:
        if not _has(out, file):
            raise ExportError(
                f"{out / file['path']} is missing or has changed since the export: --overwrite makes it anew"
            )


def _manifest_or_head(out: Path) -> dict[str, Any]:
    """The manifest of a whole export, else the head of its journal; empty where there is neither."""
    return _export_facts(out / MANIFEST, whole=True) or _export_facts(out / JOURNAL, whole=False)


def _export_facts(path: Path, *, whole: bool) -> dict[str, Any]:
    """What a file says of an export: all its text, or only its first line. Empty for a file of another sort."""
    try:
        text = path.read_text()
        facts = json.loads(text if whole else text.split("\n", 1)[0])
    except (OSError, ValueError):
        return {}
    is_export = isinstance(facts, dict) and {"export", "identity"} <= facts.keys()
    return facts if is_export else {}


def _resume(folder: ExportFolder) -> None:
    """Read the journal, drop the line that a kill cut, and delete files that it does not name."""
    lines = _read_journal(folder)
    write_file(folder.root / JOURNAL, ("\n".join(lines) + "\n").encode())
    named = {file["path"] for part in folder.parts.values() for file in part["files"]}
    _delete_all_but(folder.root, {JOURNAL, *named})


def _read_journal(folder: ExportFolder) -> list[str]:
    """Take over the finished parts; returns the lines that say so, the head first."""
    head, *lines = (folder.root / JOURNAL).read_text().split("\n")
    whole = [head]
    for line in lines:
        part = _part_of(line)
        if part is not None and all(_has(folder.root, file) for file in part["files"]):
            folder.parts[part["part"]] = part
            whole.append(line)
    return whole


def _part_of(line: str) -> dict[str, Any] | None:
    """The finished part that a line of the journal names; None for one that a kill cut."""
    try:
        return json.loads(line)
    except ValueError:
        return None


def _has(root: Path, file: Mapping[str, Any]) -> bool:
    path = root / file["path"]
    return path.is_file() and path.stat().st_size == file["bytes"]


def _empty(root: Path) -> None:
    for path in root.iterdir():
        if _is_folder(path):
            shutil.rmtree(path)
        else:
            path.unlink()


def _delete_all_but(root: Path, names: Collection[str]) -> None:
    """Delete files that are not named, and folders that are empty then."""
    # backwards, so that a folder comes after what is in it
    for path in sorted(root.rglob("*"), reverse=True):
        if not _is_folder(path):
            if path.relative_to(root).as_posix() not in names:
                path.unlink()
        elif not any(path.iterdir()):
            path.rmdir()


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
