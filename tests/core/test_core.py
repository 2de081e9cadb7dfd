"""Files, addresses, cores, the version, annotators, stored pictures, CSV, settings of `eval`."""

import csv
import io
import math
import os
import pkgutil
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import product

import cv2
import duckdb
import numpy as np
import pyarrow as pa
import pytest

import proccorpus
from core import cores as of_cores
from core.annotators import (
    ANNOTATORS,
    CHOICES,
    PRECEDENCE,
    choices_with_help,
    in_words,
    made_by,
    made_by_sql,
)
from core.cores import IS_OURS, THREADS, HiddenModules, cpu_limit, tell_libraries, told_to_children
from core.domain.label_run import LabelRun
from core.errors import SecretInAddress, UserError, checked_address
from core.files import files_below, write_file
from core.paths import ROOT, Workspace
from core.pictures import decode_stored
from core.rows import encode
from core.settings import read_settings, setting_values
from core.values import spread
from eval.benchmarks.options import EvaluationOptions
from pipeline.config import StageConfigs, source_build
from tests.kits.kept_workspaces import FOLDER, KEPT
from warehouse.lake import Lake


@pytest.fixture
def umask(request) -> Iterator[int]:
    former_umask = os.umask(request.param)
    yield request.param
    os.umask(former_umask)


def test_files_below_a_folder_of_others(tmp_path, monkeypatch):
    # A link to itself is no file, and lost+found is passed over
    listed_folder = os.scandir

    def of_anybody(folder: str) -> Iterator[os.DirEntry[str]]:
        if folder.endswith("lost+found"):
            raise PermissionError(folder)
        return listed_folder(folder)

    for name in ("a/file", "lost+found/file"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    (tmp_path / "itself").symlink_to("itself")
    (tmp_path / "nothing").symlink_to("no file")
    (tmp_path / "linked").symlink_to("a/file")
    (tmp_path / "b").symlink_to("a")
    monkeypatch.setattr("core.files.os.scandir", of_anybody)
    files = sorted(os.path.relpath(file, tmp_path) for file in files_below(str(tmp_path)))
    assert files == ["a/file", "linked"]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002], indirect=True)
def test_others_may_read_as_the_umask_says(tmp_path, umask):
    path = tmp_path / "below/a.json"
    write_file(path, b"{}")
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    assert path.parent.stat().st_mode & 0o777 == 0o777 & ~umask
    write_file(path, b"[]")
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    assert list(path.parent.iterdir()) == [path]


PW = "s3cr3t"


def test_an_address_with_a_secret_is_refused():
    for address in (f"http://h/#{PW}", f"s3://{PW}@b"):
        with pytest.raises(SecretInAddress) as raised:
            checked_address(address)
        assert PW not in str(raised.value)
    assert checked_address(f"SELECT 'http://u:{PW}@h'")


@pytest.mark.parametrize("own", ["", "0::/nothing/there\n"])
def test_where_nothing_says_so_there_is_no_limit(tmp_path, own):
    assert cpu_limit(own, tmp_path) == math.inf


def test_workers_share_what_their_parent_may_use(monkeypatch):
    monkeypatch.delenv(THREADS, raising=False)
    monkeypatch.delenv(IS_OURS, raising=False)
    with told_to_children(3):
        assert os.environ[THREADS] == "3"
    assert THREADS not in os.environ
    # What the user says counts; what we said for this process is no word of the user's
    monkeypatch.setattr(of_cores, "cores", lambda: 0)
    monkeypatch.setenv(THREADS, "7")
    for threads, threads_of_child in (("7", "7"), ("0", "3")):
        tell_libraries()
        assert os.environ[THREADS] == threads
        with told_to_children(3):
            assert os.environ[THREADS] == threads_of_child
        assert os.environ[THREADS] == threads
        monkeypatch.delenv(THREADS)
    monkeypatch.delenv(IS_OURS)


@pytest.mark.parametrize("name", ["pandas", "pyarrow.dataset"])
def test_only_an_import_in_python_finds_it(monkeypatch, name):
    monkeypatch.setattr(sys, "meta_path", [HiddenModules(), *sys.meta_path])
    monkeypatch.delitem(sys.modules, name, raising=False)
    assert find_spec(name)
    with pytest.raises(ModuleNotFoundError):
        __import__(name)  # a call, as compiled libraries make it


def test_package_changelog_citation_and_lake_agree(tmp_path):
    in_lake = "SELECT proccorpus FROM schema_versions ORDER BY version DESC LIMIT 1"
    assert Lake(Workspace(tmp_path)).rows(in_lake) == [(proccorpus.__version__,)]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    match = re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    newest = re.search(r"^## ([0-9.]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert {project["version"], match[1], newest[1]} == {proccorpus.__version__}


def test_a_workspace_of_each_version_in_the_changelog_is_kept():
    """That which is in preparation has none yet."""
    versions = re.findall(r"^## ([0-9.]+), 20", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert [version for version in versions if version not in KEPT] == []
    assert sum((FOLDER / f"{version}.tar.xz").stat().st_size for version in KEPT) <= 2 << 20


FORMULAS = [
    '=HYPERLINK("http://evil","x")',
    "+cmd|calc",
    "-1+1",
    "@SUM(1)",
    " =1",
    "\t=1",
    "-",
    "=",
    "\r\n=1",
]
HARMLESS = ["-1.5", "+3e-2", ".5", "Lift = put", "a@b", "'=1", "", "1-1", "è=1"]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_texts(kind):
    table = pa.table(
        {"text": pa.array([*FORMULAS, *HARMLESS, None], kind), "n": pa.array([-1.5] * 19)}
    )
    rows = list(csv.DictReader(io.StringIO(encode(table, "csv").decode(), newline="")))
    assert [row["text"] for row in rows] == [*(f"'{text}" for text in FORMULAS), *HARMLESS, ""]
    assert {row["n"] for row in rows} == {"-1.5"}
    # Other forms are no spreadsheet's
    assert '"text": "+cmd|calc"' in encode(table, "json").decode()


def test_lists_are_json_text():
    table = pa.table({"steps": [["=1", "-1"], []]})
    assert encode(table, "csv").decode() == '"steps"\n"[""=1"", ""-1""]"\n"[]"\n'


def test_settings_are_read_as_their_fields_are():
    texts = ["top-p=0.5", "seed=7", "think=no", "price=2.5,10"]
    options = read_settings(EvaluationOptions, "eval", {"limit": 3} | setting_values(texts))
    assert options.limit == 3
    assert (options.top_p, options.seed, options.think, options.prices) == (
        0.5,
        7,
        False,
        (2.5, 10),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sede=1", "eval has no setting 'sede'; did you mean seed\\?; it has: model, "),
        ("seed", "--set seed: a setting is KEY=VALUE"),
        ("seed=-1", "seed: input should be greater than or equal to 0"),
        ("price=2", "price 2: give two numbers"),
    ],
)
def test_a_wrong_setting_is_named_with_those_that_there_are(text, message):
    with pytest.raises(UserError, match=message):
        read_settings(EvaluationOptions, "eval", setting_values([text]))


FIRST_FOUR = ["native", "transfer", "vlm", "motion"]


def test_the_list_decides_what_a_configuration_may_name():
    assert [StageConfigs(annotator=name).annotator for name in CHOICES] == [*CHOICES]
    with pytest.raises(ValueError, match="'auto', 'motion', 'native', 'vlm'"):
        StageConfigs(annotator="guess")


def test_every_row_names_functions_and_settings_that_are_there(tmp_path):
    build = source_build(tmp_path, "some", None, None)
    for annotator in ANNOTATORS:
        run = annotator.label_run_of(build)
        assert isinstance(run, LabelRun)
        assert run.annotator == annotator.name
        assert not annotator.settings or annotator.settings in StageConfigs.model_fields
        assert not annotator.labels or callable(pkgutil.resolve_name(annotator.labels))


def test_precedence_and_words():
    assert made_by("human", None, follows=False) == "people"
    assert made_by("native", None, follows=False) == "motion"
    assert made_by("native", "source", follows=False) == "steps of the source"
    assert made_by("vlm", None, follows=True) == "like those of vlm"
    assert [name for name in PRECEDENCE if name in FIRST_FOUR] == FIRST_FOUR
    assert in_words(("auto", "motion", "vlm")) == "auto, motion or vlm"
    assert "native (the source's steps)" in choices_with_help()


@pytest.mark.parametrize(
    ("annotator", "steps_from", "follows"),
    product(
        ("motion", "native", "vlm", "transfer", "human", "imported"),
        (None, "source"),
        (True, False),
    ),
)
def test_sql_and_python_say_the_same_of_who_made_a_label(annotator, steps_from, follows):
    sql = f"SELECT {made_by_sql('a', 's', 'f')} FROM (SELECT $1 AS a, $2 AS s, $3 AS f)"
    [sql_result] = duckdb.execute(sql, [annotator, steps_from, follows]).fetchone() or [""]
    assert sql_result == made_by(annotator, steps_from, follows=follows)


def test_a_stored_picture_has_its_pixels():
    blue = np.full((4, 6, 3), (255, 0, 0), np.uint8)
    data = cv2.imencode(".png", blue)[1].tobytes()
    assert (decode_stored(data) == blue).all()
    assert (decode_stored(data, mode=cv2.IMREAD_COLOR_RGB) == blue[..., ::-1]).all()


@pytest.mark.parametrize("data", [b"", b"text", b"\xff\xd8\xff"])
def test_what_is_no_picture_is_refused_by_its_name(data):
    with pytest.raises(ValueError, match=rf"keyframe 7 is not a picture .*\({len(data)} bytes\)"):
        decode_stored(data, "keyframe 7")


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (-1, ""),
        (0, ""),
        (1, "a"),
        (2, "ag"),
        (3, "adg"),
        (7, "abcdefg"),
        (9, "abcdefg"),
    ],
)
def test_items_are_spread_at_equal_distances(count, expected):
    assert "".join(spread("abcdefg", count)) == expected
