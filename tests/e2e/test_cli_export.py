"""`proccorpus export` and `import` as a user runs them: output, exit codes, what is refused."""

import json
from pathlib import Path

import pytest

from tests.kits.cli_kit import DONE, USAGE, Built, assert_one_error_line, ok, proccorpus

# Of two of its labels the names of steps are less sure than is usual
ALL = ("--allow-licence", "unknown", "--min-name-confidence", 0)


def test_an_export_its_import_and_a_second_run(own: Built, tmp_path: Path):
    out = tmp_path / "lerobot"
    words = ("export", "lerobot", "--out", out, "--allow-licence", "unknown", "--format", "json")
    made = proccorpus(*words, cwd=tmp_path, workspace=own.workspace)
    assert made.code == DONE, made
    told = json.loads(made.out)
    assert (told["episodes"], told["frames"], told["again"]) == (5, 110, False)
    manifest = json.loads((out / "manifest.json").read_text())
    assert {f["path"] for f in manifest["files"]} >= {"meta/info.json", "sarm_progress.parquet"}
    assert len(manifest["files"]) + 1 == told["files"] == sum(p.is_file() for p in out.rglob("*"))
    assert manifest["label_runs"][0]["annotator"] == "motion"
    assert json.loads(proccorpus(*words, cwd=tmp_path, workspace=own.workspace).out)["again"] is True
    done = ok(proccorpus("import", out, "--name", "tiny", "--format", "json", cwd=tmp_path, workspace=own.workspace))
    assert json.loads(done.out)["episodes"] == 5


def test_signals_of_frames_go_out_and_come_in(own: Built, tmp_path: Path):
    out = tmp_path / "s.parquet"
    words = ("export", "frame-signals", "--out", out, *ALL, "--advantage", 8)
    ok(proccorpus(*words, cwd=tmp_path, workspace=own.workspace))
    words = ("import", "frame-signals", out, "--name", "tiny", "--format", "json")
    done = json.loads(ok(proccorpus(*words, cwd=tmp_path, workspace=own.workspace)).out)
    assert (done["form"], done["episodes"], done["refused"]) == ("frame-signals", 5, [])
    for wrong, why in (
        (("import", "frame-signals", tmp_path / "gone", "--name", "tiny"), "no such file"),
        (("import", "frame-signals", __file__, "--name", "tiny"), "no Parquet file"),
        (("import", "mine", out, "--name", "tiny"), "there is no form mine"),
        (("import", "a", "b", out, "--name", "tiny"), "one form and one path"),
        (("export", "frame-signals", "--out", tmp_path / "t", "--label-run", "x", "--from-model", "y"), "one of them"),
    ):
        result = proccorpus(*wrong, cwd=tmp_path, workspace=own.workspace)
        assert result.code == USAGE
        assert why in assert_one_error_line(result)


@pytest.mark.parametrize(
    ("kind", "form", "out"),
    [
        ("opensarm", "opensarm", "out"),
        ("robometer", "robometer", "out"),
        ("annotations-json", "annotations-json", "out.json"),
        ("robo-dopamine", None, "out"),
    ],
)
def test_forms_of_others_go_out_and_come_in(own: Built, tmp_path: Path, kind: str, form: str | None, out: str):
    words = ("export", kind, "--out", tmp_path / out, *ALL, "--format", "json")
    told = proccorpus(*words, cwd=tmp_path, workspace=own.workspace).json  # notes may stand on stderr
    assert (told["episodes"], told["frames"], told["again"]) == (5, 110, False)
    assert proccorpus(*words, cwd=tmp_path, workspace=own.workspace).json["again"] is True
    if form is not None:
        words = ("import", form, tmp_path / out, "--name", "tiny", "--format", "json")
        done = json.loads(ok(proccorpus(*words, cwd=tmp_path, workspace=own.workspace)).out)
        assert (done["form"], done["episodes"], done["refused"]) == (form, 5, [])
    other = ("--out", tmp_path / out, "--allow-licence", "unknown", "--where", "episode_index = 0")
    result = proccorpus("export", kind, *other, cwd=tmp_path, workspace=own.workspace)
    assert result.code == USAGE
    assert "another export" in assert_one_error_line(result)


def test_rabc_writes_its_file_and_a_readme(built: Built, tmp_path: Path):
    words = ("export", "rabc", "--out", tmp_path / "out", *ALL, "--chunk-size", 8)
    ok(proccorpus(*words, cwd=tmp_path, workspace=built.workspace))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "README.md",
        "manifest.json",
        "sarm_progress.parquet",
    ]
    assert "--sample_weighting.kappa=" in (tmp_path / "out/README.md").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("export", "lerobot"), "licence is unknown"),
        (("export", "rabc", "--allow-licence", "unknown", "--where", "1; DROP TABLE frames"), "Parser Error"),
        (("export", "rabc", "--allow-licence", "unknown", "--where", "FROM read_csv('/etc/passwd')"), "not allowed"),
    ],
)
def test_what_is_refused_leaves_nothing(built: Built, tmp_path: Path, words: tuple[str, ...], message: str):
    result = proccorpus(*words, "--out", tmp_path / "out", cwd=tmp_path, workspace=built.workspace)
    assert (result.code, result.out) == (USAGE, "")
    assert message in assert_one_error_line(result)
    assert not (tmp_path / "out").exists()


def test_an_import_of_nothing_is_refused(built: Built, tmp_path: Path):
    result = proccorpus("import", tmp_path / "gone", "--name", "tiny", cwd=tmp_path, workspace=built.workspace)
    assert result.code == USAGE
    assert "no such file" in assert_one_error_line(result)
