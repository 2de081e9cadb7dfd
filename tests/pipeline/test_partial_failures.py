"""One episode fails; the others are built, whoever labels them: FAILURES x ANNOTATORS x what follows of a build.

A cell of the table holds where the others are complete and equal to those of a build without that episode, and a
finding names it. A few cells are tried always: each failure with the next annotator, each thing that follows once.
"""

import re
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq
import pytest
from reference_pages import PARTIAL_FAILURES

from core.errors import UserError
from core.paths import Workspace
from pipeline.build import run_build
from pipeline.release import release_step
from pipeline.reward_model import reward_model_step
from tests.assets.defs.corpus.test_assets import ASSETS, CHAIN, materialize
from tests.kits.cli_kit import run_here
from tests.kits.files import files_of
from tests.kits.lake_kit import opened
from tests.kits.laptop_kit import recipe
from tests.kits.made_corpus import Made
from tests.kits.partial_failures import (
    ANNOTATORS,
    BAD,
    EVERY,
    FAILURES,
    NAME,
    OTHERS,
    Annotator,
    Cell,
    Failure,
    Workshop,
)
from training.laptop.model import WEIGHTS
from warehouse.exports import EXPORT_KINDS
from warehouse.exports.export import MANIFEST
from warehouse.exports.options import LabelOptions, Selection
from warehouse.releases.release import create_release, get_release

SHARDS = "SELECT split, shard, sha256 FROM shards ORDER BY 1, 2"
# Kinds that go with a dataset which is there, so that an episode without a label has rows that say nothing of it
KEEPS = ("weights", "rabc", "robometer")
FACTS = re.compile(rb'"(ts|snapshot|identity)": *("[^"]*"|\d+)')  # of a moment, not of the data


# What follows of a build: each gives what it comes to for the other episodes, of a cell or of a build without the
# episode, which has to be the same. `all_labelled`: the failing one has a label, too, so that it is cut out


def samples(cell: Cell, all_labelled: bool, folder: Path) -> Any:
    tables = ("episode_labels", "segments", "progress", "samples", "splits")
    sql = "FROM {} WHERE episode_index <> {} ORDER BY ALL"
    labelled = cell.rows("SELECT DISTINCT episode_index FROM samples ORDER BY 1")
    if cell.failure:
        assert labelled == [(k,) for k in (OTHERS, EVERY)[all_labelled]]
        check_findings(cell)
    return {table: cell.rows(sql.format(table, BAD)) for table in tables}


def check_findings(cell: Cell) -> None:
    """The failure is named, and nothing else."""
    failure = cell.failure
    assert failure
    assert cell.report.failed == []
    assert cell.report.is_partial == (failure.row.exit_code == 3)
    severity = ("unusable", "warning")[failure.row.is_usable]
    sql = f"SELECT DISTINCT severity FROM findings WHERE (episode_index, reason) = ({BAD}, '{failure.row.code}')"
    assert cell.rows(sql) == [(severity,)]
    left_out = cell.rows("SELECT dataset, episode_index, reason, severity FROM quarantine")
    assert left_out == [(NAME, BAD, failure.row.code, severity)] * (not cell.is_labelled)
    unlabelled = cell.rows("SELECT unlabelled FROM coverage")
    assert unlabelled == [(int(failure.row.is_usable and not cell.is_labelled),)]
    if cell.imported:
        assert cell.imported.episodes == len(OTHERS) + failure.row.is_usable
        refused = [text.split(":")[0] for text in cell.imported.refused]
        assert refused == [f"episode {BAD}"] * (not failure.row.is_usable)


def shards(cell: Cell, all_labelled: bool, folder: Path) -> Any:
    return entries(cell.space, all_labelled)


def entries(space: Workspace, all_labelled: bool) -> Any:
    """The listed tars; where the episode is in them, all but its own entry."""
    with opened(space) as lake:
        listed = lake.rows(SHARDS)
        if not all_labelled:
            return listed
    members = {}
    for split, shard, _ in listed:
        with tarfile.open(space.shard(split, shard, None)) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file
                members[member.name] = file.read()
    return {
        name: data for name, data in members.items() if not name.startswith(f"{NAME}-{BAD:06d}.")
    }


def release(cell: Cell, all_labelled: bool, folder: Path) -> Any:
    space = cell.copy(folder)
    with opened(space) as lake:
        files = [(s.split, s.shard, s.sha256) for s in create_release(lake, "r1").shard_list]
        assert files == lake.rows(SHARDS)
    return entries(space, all_labelled)


def exports(cell: Cell, all_labelled: bool, folder: Path) -> Any:
    """By kind the content of its files, of the whole dataset; where the episode has a label, of the others."""
    found = {}
    with opened(cell.space) as lake:
        for name, kind in EXPORT_KINDS.items():
            options = {}
            has_it = all_labelled
            if cell.imported and issubclass(kind.options, LabelOptions):
                options["label_run"] = cell.imported.label_run
                has_it |= bool(cell.failure and cell.failure.rejects)  # not this label
            selection = Selection(datasets=(NAME,), episodes=(None, OTHERS)[has_it])
            place = folder.joinpath(name, *["file"] * kind.is_file)
            try:
                kind.export(lake, selection, place, kind.read_options(options))
            except UserError as e:
                found[name] = str(e)
                continue
            found[name] = contents(folder / name, name)
            assert found[name], name
    refusals = [text for text in found.values() if isinstance(text, str)]
    assert all("is no LeRobot dataset" in text for text in refusals), refusals
    return found


def contents(folder: Path, kind: str) -> dict[str, object]:
    """Rows of tables, hashes of other files; a recording of Rerun has ids and times of its own."""
    found: dict[str, object] = {}
    for name, data in files_of(folder).items():
        if data[:4] == b"PAR1":
            table = pq.read_table(folder / name)
            # Places in the dataset, in which the failing episode may be shorter
            rows = table.select([c for c in table.column_names if c != "index"]).to_pylist()
            found[name] = repr([row for row in rows if kind not in KEEPS or is_of_others(row)])
        elif name not in (MANIFEST, "README.md") and not (kind in KEEPS and f"{BAD:06d}" in name):
            found[name] = None if kind == "rerun" else sha256(FACTS.sub(b"", data)).hexdigest()
    return found


def is_of_others(row: dict[str, object]) -> bool:
    """Of a table of KEEPS; LeRobot's weights have rows of no episode beside."""
    return row.get("episode_index") not in (BAD, -1) and f"/{BAD:06d}/" not in str(row.get("id"))


def train_laptop(cell: Cell, all_labelled: bool, folder: Path) -> Any:
    with opened(cell.copy(folder)) as lake:
        release_step(lake, "r1")
        outcome = reward_model_step(lake, get_release(lake, "r1"), recipe(train={"steps": 2}))
        weights = (outcome.files[0] / WEIGHTS).read_bytes()
    assert weights
    return all_labelled or sha256(weights).hexdigest()


def dagster_checks(cell: Cell, all_labelled: bool, folder: Path) -> Any:
    """The assets that rest on labels, each made again alone, and what their checks say."""
    made = Made(cell.copy(folder), cell.build, cell.report)
    evaluations = []
    with dg.DagsterInstance.ephemeral() as instance:
        if cell.failure and cell.failure.is_fleeting:
            assert materialize([ASSETS["episodes"]], NAME, made, instance).success
            materialize((*CHAIN, ASSETS["reasoning"]), f"{NAME}:00000", made, instance)
        for name in ("progress", "samples", "shards"):
            result = materialize([ASSETS[name]], f"{NAME}:00000", made, instance)
            assert result.success, name
            evaluations += result.get_asset_check_evaluations()
    assert all(e.passed for e in evaluations if e.blocking)
    return [(e.check_name, e.passed) for e in evaluations]


def nightly(cell: Cell, all_labelled: bool, folder: Path) -> Any:
    space = cell.copy(folder)
    code = run_here("nightly", "--workers", 1, "--workspace", space.root)
    if cell.failure:
        assert code == cell.failure.row.exit_code * (not cell.failure.is_fleeting)
    with opened(space) as lake:
        assert lake.rows(SHARDS.replace("shards", "release_shards")) == lake.rows(SHARDS)
    return entries(space, all_labelled)


def next_build(cell: Cell, all_labelled: bool, folder: Path) -> Any:
    """It makes again only what lacks an answer; where the server answers, or the source is mended, nothing lacks."""
    space = cell.copy(folder / "workspace")
    failure = cell.failure
    build = cell.moved(folder / "source")
    again = run_build(space, [build], workers=1)
    same = entries(space, all_labelled)
    if failure and not failure.is_fleeting:
        assert bool(again.done) == failure.row.asks
    if failure and not failure.rejects:
        mended = run_build(space, [cell.mended(build)], workers=1)
        assert (mended.failed, mended.is_partial) == ([], False)
        with opened(space) as lake:
            assert lake.column("SELECT DISTINCT episode_index FROM samples ORDER BY 1") == [*EVERY]
            assert lake.rows("FROM quarantine") == []
    return same


FOLLOWS: tuple[Callable[[Cell, bool, Path], Any], ...] = (
    samples, shards, release, exports, train_laptop, dagster_checks, nightly, next_build,
)  # fmt: skip

# They read a source that changed anew, so that what it holds now has a label
RENEWING = (dagster_checks, nightly, next_build)


# The table


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with ExitStack() as servers, pytest.MonkeyPatch.context() as patch:
        patch.setattr("annotate.model_client.client.FIRST_PAUSE_S", 0.002)
        patch.setattr("annotate.model_client.client.LONGEST_PAUSE_S", 0.02)
        yield Workshop(tmp_path_factory.mktemp("partial"), servers)


def can_happen(failure: Failure, annotator: Annotator) -> bool:
    """A model alone replies; the build after a person's statement does not look at the pictures again."""
    if failure.row.asks:
        return annotator.name == "vlm"
    return not (failure.is_fleeting and annotator.corrected)


def cells() -> Iterator[object]:
    """(failure, annotator, follows); of each failure one annotator is tried always, of every second by one thing more
    than samples."""
    for k, (failure_name, failure) in enumerate(FAILURES.items()):
        names = [name for name, annotator in ANNOTATORS.items() if can_happen(failure, annotator)]
        for name in names:
            for follows in FOLLOWS:
                further = FOLLOWS[(1 + k // 2 % (len(FOLLOWS) - 1)) * (k % 2 == 0)]
                is_next = follows in (samples, further)
                is_tried = is_next and name == names[k % len(names)]
                marks = [pytest.mark.long] * (not is_tried)
                key = "-".join((failure_name, name, follows.__name__)).replace(" ", "_")
                yield pytest.param(failure_name, name, follows, marks=marks, id=key)


@pytest.mark.parametrize(("failure_name", "name", "follows"), cells())
def test_the_others_are_as_without_it(
    failure_name: str, name: str, follows: Callable[..., Any], workshop: Workshop, tmp_path: Path
) -> None:
    failure = FAILURES[failure_name]
    cell = workshop.cell(name, failure_name)
    reference = workshop.reference(name, failure.write)
    all_labelled = cell.is_labelled or (failure.is_fleeting and follows in RENEWING)
    expected = reference.outcome(follows, all_labelled)
    outcome = follows(cell, all_labelled, tmp_path / "cell")
    if isinstance(outcome, dict):  # of many parts: the names of those that differ say more
        assert [
            k for k in outcome.keys() | expected.keys() if outcome.get(k) != expected.get(k)
        ] == []
    assert outcome == expected


def test_the_page_has_all_rows() -> None:
    assert PARTIAL_FAILURES.keys() == FAILURES.keys()
