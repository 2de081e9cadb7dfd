"""One episode fails; the others are built, whoever labels them: FAILURES x ANNOTATORS x what follows of a build.

A cell of the table holds where the others are complete and equal to those of a build without that episode, and a
finding names it. A few cells are tried always: each failure with the next annotator and the next consequence.
"""

import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest
from reference_pages import ASKS, PARTIAL_FAILURES

from core.paths import Workspace
from pipeline.build import run_build
from pipeline.release import release_step
from pipeline.reward_model import reward_model_step
from tests.assets.defs.corpus.test_assets import ASSETS, materialize
from tests.kits.cli_kit import run_here
from tests.kits.files import hashes_of
from tests.kits.lake_kit import opened
from tests.kits.laptop_kit import recipe
from tests.kits.made_corpus import Made, with_stages
from tests.kits.partial_failures import (
    ANNOTATORS,
    BAD,
    EVERY,
    FAILURES,
    NAME,
    OTHERS,
    Cell,
    Workshop,
)
from training.laptop.model import WEIGHTS
from warehouse.exports import EXPORT_KINDS
from warehouse.exports.export import MANIFEST
from warehouse.exports.options import LabelOptions, Selection
from warehouse.releases.release import create_release, get_release

LABELS = ("episode_labels", "segments", "progress")
LISTED = "SELECT split, shard, sha256 FROM {} ORDER BY 1, 2"


@dataclass
class Pair:
    """A cell, and what it is compared with: the same source, built without the episode; `mended`: the source whole."""

    cell: Cell
    reference: Cell
    mended: Path
    folder: Path
    instance: dg.DagsterInstance

    def own(self, of: Cell) -> Workspace:
        """A copy of a workspace, for changing."""
        name = "reference" if of is self.reference else "cell"
        return of.copy(self.folder / name)

    @property
    def both(self) -> tuple[Cell, Cell]:
        return self.cell, self.reference


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with ExitStack() as servers, pytest.MonkeyPatch.context() as patch:
        patch.setattr("annotate.model_client.client.FIRST_PAUSE_S", 0.002)
        patch.setattr("annotate.model_client.client.LONGEST_PAUSE_S", 0.02)
        yield Workshop(tmp_path_factory.mktemp("partial"), servers)


# What follows


def samples(pair: Pair) -> None:
    cell, reference = pair.both
    failure = cell.failure
    assert failure
    assert cell.report.failed == []
    assert cell.report.is_partial == (failure.exit_code == 3)
    for table in (*LABELS, "samples", "splits"):
        sql = f"FROM {table} WHERE episode_index <> {BAD} ORDER BY ALL"
        assert cell.rows(sql) == reference.rows(sql), table
    labelled = cell.rows("SELECT DISTINCT episode_index FROM samples ORDER BY 1")
    assert labelled == [(k,) for k in (EVERY if failure.is_labelled else OTHERS)]

    # Who asks is told which it is, and why
    severity = "warning" if failure.is_usable else "unusable"
    found = f"SELECT DISTINCT severity FROM findings WHERE (episode_index, reason) = ({BAD}, '{failure.reason}')"
    assert cell.rows(found) == [(severity,)]
    left_out = [] if failure.is_labelled else [(NAME, BAD, failure.reason, severity)]
    listed = "SELECT dataset, episode_index, reason, severity FROM quarantine"
    assert cell.rows(listed) == left_out
    unlabelled = int(failure.is_usable and not failure.is_labelled)
    assert cell.rows("SELECT unlabelled FROM coverage") == [(unlabelled,)]
    if cell.imported:
        assert cell.imported.episodes == len(OTHERS) + failure.is_usable
        assert [text.split(":")[0] for text in cell.imported.refused] == (
            [] if failure.is_usable else [f"episode {BAD}"]
        )


def shards(pair: Pair) -> None:
    cell, reference = pair.both
    assert entries(cell, cell.space) == entries(reference, reference.space)


def entries(cell: Cell, space: Workspace) -> object:
    """The tars; of those in which the episode has a label, all but its own entry."""
    if not (cell.failure and cell.failure.is_labelled):
        return hashes_of(space.root / "shards", "*.tar") or "none"
    return members(space)


def members(space: Workspace) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for path in (space.root / "shards").rglob("*.tar"):
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file
                found[member.name] = file.read()
    return {n: b for n, b in found.items() if not n.startswith(f"{NAME}-{BAD:06d}.")}


def release(pair: Pair) -> None:
    for cell in pair.both:
        space = pair.own(cell)
        with opened(space) as lake:
            made = create_release(lake, "r1")
            listed = [(s.split, s.shard, s.sha256) for s in made.shard_list]
            assert listed == lake.rows(LISTED.format("shards"))
            assert listed


# Kinds that go with a dataset which is there, so that an episode without a label has rows that say nothing of it
KEEPS = ("weights", "rabc", "robometer")
FACTS = (MANIFEST, "README.md")  # they name the snapshot, and count


def exports(pair: Pair) -> None:
    """Each kind, of the whole dataset; where the episode has a label, of the others."""
    assert pair.cell.failure
    episodes = OTHERS if pair.cell.failure.is_labelled else None
    written = [exported(pair.folder / str(k), cell, episodes) for k, cell in enumerate(pair.both)]
    assert [kind for kind in EXPORT_KINDS if written[0][kind] != written[1][kind]] == []
    assert all(written[0].values())


def exported(
    out: Path, cell: Cell, episodes: tuple[int, ...] | None
) -> dict[str, dict[str, object]]:
    """By kind the content of the files of an export, without those of FACTS."""
    with opened(cell.space) as lake:
        for name, kind in EXPORT_KINDS.items():
            is_imported = cell.imported and issubclass(kind.options, LabelOptions)
            run = {"label_run": cell.imported.label_run} if cell.imported and is_imported else {}
            selection = Selection(datasets=(NAME,), episodes=episodes)
            place = out / name / "file" if kind.is_file else out / name
            kind.export(lake, selection, place, kind.read_options(run))
    return {name: contents(out / name, name) for name in EXPORT_KINDS}


def contents(folder: Path, kind: str) -> dict[str, object]:
    """Rows of tables, hashes of other files; a recording of Rerun has ids and times of its own."""
    found: dict[str, object] = {}
    for name, sha256 in hashes_of(folder).items():
        if (folder / name).read_bytes()[:4] == b"PAR1":
            rows = pq.read_table(folder / name).to_pylist()
            found[name] = repr([row for row in rows if kind not in KEEPS or is_of_others(row)])
        elif Path(name).name not in FACTS and not (kind in KEEPS and f"{BAD:06d}" in name):
            found[name] = None if kind == "rerun" else sha256
    return found


def is_of_others(row: dict[str, object]) -> bool:
    """Of a table of KEEPS; LeRobot's weights have rows of no episode beside, and places in the dataset."""
    row.pop("index", None)
    return row.get("episode_index") not in (BAD, -1) and f"/{BAD:06d}/" not in str(row.get("id"))


def train_laptop(pair: Pair) -> None:
    weights = []
    for cell in pair.both:
        with opened(pair.own(cell)) as lake:
            release_step(lake, "r1")
            outcome = reward_model_step(lake, get_release(lake, "r1"), recipe(train={"steps": 2}))
            weights.append(hashes_of(outcome.files[0], WEIGHTS))
            assert weights[-1]
    assert pair.cell.failure
    assert pair.cell.failure.is_labelled or weights[0] == weights[1]


def dagster_checks(pair: Pair) -> None:
    """The assets that rest on the labels, made again alone, and what their checks say."""
    evaluations = []
    for cell in pair.both:
        made = Made(pair.own(cell), cell.build, cell.report)
        for name in ("progress", "samples", "shards"):
            result = materialize([ASSETS[name]], f"{NAME}:00000", made, pair.instance)
            assert result.success, name
            evaluations += [
                (cell is pair.cell, e.check_name, e.passed, e.severity)
                for e in result.get_asset_check_evaluations()
            ]
    assert {passed for _, _, passed, severity in evaluations if severity.name == "ERROR"} == {True}
    with_it, without = ([e[1:] for e in evaluations if e[0] is which] for which in (True, False))
    assert with_it == without


def nightly(pair: Pair) -> None:
    cell = pair.cell
    assert cell.failure
    space = pair.own(cell)
    code = run_here("nightly", "--workers", 1, "--workspace", space.root)
    assert code == cell.failure.exit_code
    assert entries(cell, space) == entries(cell, pair.reference.space)
    with opened(space) as lake:
        assert lake.rows(LISTED.format("release_shards")) == lake.rows(LISTED.format("shards"))


def next_build(pair: Pair) -> None:
    """It makes again only what lacks an answer; where the server answers, or the source is mended, nothing lacks."""
    cell = pair.cell
    failure = cell.failure
    assert failure
    space = pair.own(cell)
    source = shutil.copytree(cell.build.dataset.source, pair.folder / "source")
    dataset = cell.build.dataset.model_copy(update={"source": str(source)})
    build = cell.build.model_copy(update={"dataset": dataset})
    again = run_build(space, [build], workers=1)
    assert {r.run.stage for r in again.done} == ({"segments"} if failure.asks else set())
    assert entries(cell, space) == entries(cell, pair.reference.space)
    if failure.rejects:
        return
    shutil.copytree(pair.mended, source, dirs_exist_ok=True)
    build = with_stages(build, vlm=pair.reference.build.stages.vlm)
    mended = run_build(space, [build], workers=1)
    assert (mended.failed, mended.is_partial) == ([], False)
    with opened(space) as lake:
        assert lake.column("SELECT DISTINCT episode_index FROM samples ORDER BY 1") == list(EVERY)
        assert lake.rows("FROM quarantine") == []


FOLLOWS: tuple[Callable[[Pair], None], ...] = (
    samples, shards, release, exports, train_laptop, dagster_checks, nightly, next_build,
)  # fmt: skip


# The table


def test_the_page_has_each_row_as_it_is() -> None:
    for name, failure in FAILURES.items():
        row = PARTIAL_FAILURES[name]
        left_out = "everything"
        if failure.is_usable:
            left_out = "nothing" if failure.is_labelled else "labels"
        assert (row.codes, row.left_out, row.exit_code) == (
            failure.reason,
            left_out,
            failure.exit_code,
        )
        assert (row.next_build == ASKS) == failure.asks
    assert PARTIAL_FAILURES.keys() - FAILURES.keys() == {"source changed"}


def rows() -> Iterator[object]:
    """All cells; of each failure one with each kind of following is tried always."""
    for k, (failure_name, failure) in enumerate(FAILURES.items()):
        names = [name for name in ANNOTATORS if name == "vlm" or not failure.asks]
        for name in names:
            for j, follows in enumerate(FOLLOWS):
                is_next = name == names[k % len(names)] and j in (0, 1 + k % (len(FOLLOWS) - 1))
                marks = () if is_next else (pytest.mark.long,)
                key = "-".join((failure_name, name, follows.__name__)).replace(" ", "_")
                yield pytest.param(failure_name, name, follows, marks=marks, id=key)


@pytest.mark.parametrize(("failure_name", "name", "follows"), rows())
def test_the_others_are_as_without_it(
    failure_name: str,
    name: str,
    follows: Callable[[Pair], None],
    workshop: Workshop,
    tmp_path: Path,
    instance: dg.DagsterInstance,
) -> None:
    cell = workshop.cell(name, failure_name)
    reference = workshop.reference(name, FAILURES[failure_name].write)
    mended = workshop.source(FAILURES[failure_name].write, ANNOTATORS[name])
    follows(Pair(cell, reference, mended, tmp_path, instance))
