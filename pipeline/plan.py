"""Decide what is up to date: one answer for the command line, the build loop and Dagster's sensors."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields

from pipeline.reading import ChunkMemory
from pipeline.stage import AnyStep, ChunkStep, DatasetStep, StageSpec
from warehouse.lake import WHOLE_DATASET, Lake, StageRun, content_key
from warehouse.lake.corrections import correction_stamps
from warehouse.lake.outcomes import outcome_stamp
from warehouse.lake.references import may_have_references, reference_stamps
from warehouse.releases.takedown import takedown_stamp

CURRENT, MISSING, STALE, WAITING = "current", "missing", "stale", "waiting"

MEASURING = ("episodes", "frames", "embeddings")  # stages that say what references show, beside people

Specs = Sequence[StageSpec]


@dataclass(frozen=True)
class _Recorded:
    """What `stage_runs` says of one stage on one partition under one label run."""

    input_hash: str
    output_hash: str
    outcomes_hash: str
    others_hash: str


@dataclass(frozen=True)
class _History:
    """What `stage_runs` says of some datasets. Keys begin with (stage, dataset, chunk)."""

    datasets: frozenset[str]
    runs: dict[tuple[str, str, int, str], _Recorded]  # by label run, too
    chunks_of: dict[tuple[str, str], set[int]]  # by stage and dataset, WHOLE_DATASET among them
    last_label_run: dict[tuple[str, str, int], str]
    newest_measured: dict[str, int]  # by dataset, the snapshot of the newest run that people's words are judged by

    def add(self, run: StageRun, snapshot: int) -> None:
        """What a chunk's stage has just published as a snapshot."""
        assert run.chunk is not None
        recorded = _Recorded(run.input_hash, run.output_hash, run.outcomes_hash, run.others_hash)
        self.runs[run.stage, run.dataset, run.chunk, run.label_run] = recorded
        self.chunks_of.setdefault((run.stage, run.dataset), set()).add(run.chunk)
        self.last_label_run[run.stage, run.dataset, run.chunk] = run.label_run
        if run.stage in MEASURING:
            self.newest_measured[run.dataset] = snapshot

    def chunks(self, stage: str, dataset: str) -> list[int]:
        """The chunks that a dataset's listing registered."""
        return sorted(self.chunks_of.get((stage, dataset), set()) - {WHOLE_DATASET})


@dataclass(frozen=True)
class _Words:
    """What people said of a dataset, as far as inputs depend on it.

    marks: hashes of what they took down, and of outcomes that they gave.
    stamps: hashes by chunk, by the kind of chunks that have a stage because of it (Stage.of_chunks).
    """

    marks: tuple[str, str]
    stamps: Mapping[str, Mapping[int, str]]


@dataclass
class Known:
    """What one plan leaves for the next: to read it takes longer than the rest of a plan.

    snapshot: the lake's, at which `history` and `words` hold; who publishes a stage of a chunk says so (`published`),
    and whatever others commit has it read anew.
    words: what people said, by dataset and whether references count; beside it the snapshot of the newest run that it
    is judged by, None: it is judged by none.
    shown: of that what references show, by dataset and that snapshot; until the next chunk, whoever commits.
    memory: what stages of the chunk under way leave for one another.
    """

    snapshot: int = -1
    history: _History | None = None
    words: dict[tuple[str, bool], tuple[int | None, _Words]] = field(default_factory=dict)
    shown: dict[tuple[str, int], Mapping[int, str]] = field(default_factory=dict)
    memory: ChunkMemory = field(default_factory=ChunkMemory)
    _others_committed: bool = False
    _chunk: tuple[str, int] | None = None  # the dataset and chunk under way

    def begin_chunk(self, dataset: str, chunk: int) -> None:
        self._chunk = dataset, chunk
        self.memory.forget()
        if self._others_committed:
            self.shown.clear()
            self._others_committed = False

    def at(self, lake: Lake, datasets: Iterable[str]) -> _History:
        """The history of some datasets in the lake as it is now; forgets what no longer holds."""
        now = lake.snapshot()
        if self.history is None or now != self.snapshot:
            self.words.clear()
            self._others_committed = True
            before = self.history
            self.snapshot, self.history = now, _read_history(lake, frozenset(datasets))
            # Other workers commit all the time: what this one knows of its chunk stays until somebody changes that
            if before is None or _of_chunk(before, self._chunk) != _of_chunk(self.history, self._chunk):
                self.memory.forget()
        elif not self.history.datasets.issuperset(datasets):
            self.history = _read_history(lake, self.history.datasets.union(datasets))
        return self.history

    def absent_at(self, step: AnyStep) -> int | None:
        """As in Lake.publish, of the partition of a step that was planned with this."""
        if self.history is None:
            return None
        chunks_of, chunk = self.history.chunks_of, step.chunk
        if chunk is None:
            is_absent = all(dataset != step.dataset for _, dataset in chunks_of)
        else:
            is_absent = chunk not in chunks_of.get((step.stage.name, step.dataset), ())
        return self.snapshot if is_absent else None

    def published(self, run: StageRun, snapshot: int) -> None:
        """A stage of a chunk was published here as `snapshot`: where nobody else committed, nothing else is new."""
        if self.history is not None:
            self.history.add(run, snapshot)
            if snapshot == self.snapshot + 1:
                self.snapshot = snapshot


def dataset_input(spec: StageSpec, fingerprint: str, *marks: str) -> str:
    """Input hash of the stage that reads the source itself; `marks`: of what people said, empty where they did not."""
    return content_key(spec.name, spec.code_version, spec.config_hash, fingerprint, *filter(None, marks))


def chunk_input(spec: StageSpec, upstream_hashes: list[str]) -> str:
    """Input hash of any other stage; outcomes, and what people corrected, come last among the upstream hashes."""
    return content_key(spec.name, spec.code_version, spec.config_hash, *upstream_hashes)


def plan(
    lake: Lake,
    specs: Mapping[str, Specs],
    fingerprints: Mapping[str, str],
    only_chunk: int | None = None,
    known: Known | None = None,
) -> list[AnyStep]:
    """The state of every stage on every partition of the named datasets, in an order in which they can be run.

    specs: each dataset's stages (`pipeline.stages.stage_specs`), the one that reads the source first.
    fingerprints: the present state of each source. What is taken down, and outcomes that people gave, count as a part
    of the source.
    only_chunk: leave the other chunks out.
    known: keeps what was read from one plan to the next.

    Reads of stage_runs and of what people said only what concerns these datasets, once, and all of one state of the
    lake.
    """
    known = known or Known()
    with lake.reading():
        history = known.at(lake, specs)
        words_of = {name: _words(lake, name, history, of_dataset[1:], known) for name, of_dataset in specs.items()}

    steps: list[AnyStep] = []
    for dataset, (listing, *chunk_specs) in specs.items():
        # The listing: one step on the dataset as a whole
        words = words_of[dataset]
        wanted = dataset_input(listing, fingerprints[dataset], *words.marks)
        recorded = history.runs.get((listing.name, dataset, WHOLE_DATASET, ""))
        listed = DatasetStep(listing, dataset, _status(recorded, wanted), wanted)
        steps.append(listed)

        # Its chunks, each with what people said about its episodes, and about others of their tasks
        for chunk in history.chunks(listing.name, dataset):
            if only_chunk not in (None, chunk):
                continue
            # Without a current listing nobody knows what the chunk holds: all its stages wait
            outputs = {}
            if listed.status == CURRENT:
                outputs[listing.name] = history.runs[listing.name, dataset, chunk, ""].output_hash
            of_chunk = {kind: by_chunk[chunk] for kind, by_chunk in words.stamps.items() if chunk in by_chunk}
            steps += _plan_chunk(dataset, chunk, [listing, *chunk_specs], history, outputs, of_chunk)
    return steps


def _words(lake: Lake, dataset: str, history: _History, specs: Specs, known: Known) -> _Words:
    """What people said, read anew where others committed, or something was listed, measured or seen meanwhile."""
    measured = history.newest_measured.get(dataset, 0)
    references_count = any(spec.stage.of_chunks == "shown" for spec in specs)
    judged_by, words = known.words.get((dataset, references_count), (-1, None))
    if words is not None and judged_by in (None, measured):
        return words
    corrected = correction_stamps(lake, dataset)
    stamps: dict[str, Mapping[int, str]] = {"corrected": corrected}
    has_references = references_count and may_have_references(lake, dataset)
    if has_references:
        if (dataset, measured) not in known.shown:
            known.shown[dataset, measured] = reference_stamps(lake, dataset)
        stamps["shown"] = known.shown[dataset, measured]
    words = _Words((takedown_stamp(lake, dataset), outcome_stamp(lake, dataset)), stamps)
    # Where nothing is said of runs, nothing that is measured changes it
    judged_by = measured if corrected or has_references else None
    known.words[dataset, references_count] = judged_by, words
    return words


def _of_chunk(history: _History, chunk: tuple[str, int] | None) -> dict[tuple[str, str, int, str], _Recorded]:
    """What was published of a dataset and chunk, and of the dataset as a whole."""
    if chunk is None:
        return {}
    dataset, number = chunk
    return {key: run for key, run in history.runs.items() if key[1] == dataset and key[2] in (WHOLE_DATASET, number)}


def _read_history(lake: Lake, datasets: frozenset[str]) -> _History:
    # By a pattern: a lake that is only looked at may be of an earlier version, without some of the hashes
    found = lake.con.execute(
        "SELECT stage, dataset, chunk, label_run, snapshot, COLUMNS('^(input|output|outcomes|others)_hash$') "
        "FROM stage_runs WHERE list_contains(?, dataset) ORDER BY snapshot",
        [sorted(datasets)],
    )
    place_of = {column[0]: place for place, column in enumerate(found.description or ())}
    places = [place_of.get(f.name) for f in fields(_Recorded)]
    rows = found.fetchall()
    runs = {tuple(row[:4]): _Recorded(*("" if p is None else row[p] or "" for p in places)) for row in rows}
    last_label_run = {(stage, dataset, chunk): run for stage, dataset, chunk, run, *_ in rows}
    newest_measured = {dataset: snapshot for stage, dataset, _, _, snapshot, *_ in rows if stage in MEASURING}
    chunks_of: dict[tuple[str, str], set[int]] = {}
    for stage, dataset, chunk, *_ in runs:
        chunks_of.setdefault((stage, dataset), set()).add(chunk)
    return _History(datasets, runs, chunks_of, last_label_run, newest_measured)


def _plan_chunk(
    dataset: str, chunk: int, specs: Specs, history: _History, outputs: dict[str, str], stamps: Mapping[str, str]
) -> list[AnyStep]:
    """The steps of one chunk, after that of the listing (the first of `specs`).

    outputs: the output hash of each stage that is current; this adds to it as it goes down the list.
    stamps: a hash of what people said, by the kind of chunks that have a stage because of it.
    """
    # A stage that this dataset or this chunk does not have is not waited for
    present = [spec for spec in specs if _is_present(spec, dataset, chunk, history, stamps)]
    names = {spec.name for spec in present}

    steps: list[AnyStep] = []
    for spec in present[1:]:
        upstream = [name for name in spec.stage.upstream if name in names]
        # Its input is not settled yet; it is planned anew after the stage above it has run
        if any(name not in outputs for name in upstream):
            steps.append(ChunkStep(spec, dataset, WAITING, "", chunk))
            continue

        hashes = [outputs[name] for name in upstream]
        listed = history.runs[specs[0].name, dataset, chunk, ""]
        if spec.stage.reads_outcomes and listed.outcomes_hash:
            hashes.append(listed.outcomes_hash)
        if spec.stage.shows_others and listed.others_hash:
            hashes.append(listed.others_hash)
        # What people said is no stage's output, yet changes this stage's input
        stamp = stamps.get(spec.stage.of_chunks, "")
        if stamp:
            hashes.append(stamp)
        wanted = chunk_input(spec, hashes)
        status = _chunk_status(spec, dataset, chunk, wanted, history)
        if status == CURRENT:
            outputs[spec.name] = history.runs[spec.name, dataset, chunk, spec.label_run].output_hash
        steps.append(ChunkStep(spec, dataset, status, wanted, chunk, stamp))
    return steps


def _is_present(spec: StageSpec, dataset: str, chunk: int, history: _History, stamps: Mapping[str, str]) -> bool:
    """Does the chunk have this stage?"""
    if spec.stage.of_chunks == "all" or spec.stage.of_chunks in stamps:
        return True
    # What it made while there was a reason for it has to go
    return (spec.name, dataset, chunk, spec.label_run) in history.runs


def _chunk_status(spec: StageSpec, dataset: str, chunk: int, wanted: str, history: _History) -> str:
    recorded = history.runs.get((spec.name, dataset, chunk, spec.label_run))
    status = _status(recorded, wanted)
    if status != CURRENT or not spec.stage.decides_active_label:
        return status
    # The rows of this label run may be as they should be while those of another run count
    counts = history.last_label_run.get((spec.name, dataset, chunk)) == spec.label_run
    return CURRENT if counts else STALE


def _status(recorded: _Recorded | None, wanted: str) -> str:
    if recorded is None:
        return MISSING
    return CURRENT if recorded.input_hash == wanted else STALE
