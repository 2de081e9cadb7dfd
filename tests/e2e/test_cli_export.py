"""`proccorpus export` and `import` as a user runs them: output, exit codes, what is refused."""

import json
from pathlib import Path

import pytest

from tests.kits.cli_kit import USAGE, Built, assert_one_error_line, command, ok
from warehouse.exports import EXPORT_KINDS

BOTH = ("--set", "label_run=x", "--set", "from_model=y")
# Of two of its labels the names of steps are less sure than is usual
ALL = ("--allow-licence", "unknown", "--min-name-confidence", 0)


def test_signals_of_frames_go_out_and_come_in(own: Built, tmp_path: Path):
    out = tmp_path / "s.parquet"
    words = ("export", "frame-signals", "--out", out, *ALL, "--set", "advantage=8")
    exported = command(*words, cwd=tmp_path, workspace=own.workspace)
    assert exported.code == 0
    assert (
        exported.err
        == "note: tiny: 5 of 5 labels take for complete what nobody says the outcome of (outcome_assumed)\n"
    )
    words = ("import", "frame-signals", out, "--name", "tiny", "--format", "json")
    imported = json.loads(ok(command(*words, cwd=tmp_path, workspace=own.workspace)).out)
    assert (imported["form"], imported["episodes"], imported["refused"]) == ("frame-signals", 5, [])
    for wrong, reason_pattern in (
        (("import", "frame-signals", tmp_path / "gone", "--name", "tiny"), "no such file"),
        (("import", "frame-signals", __file__, "--name", "tiny"), "no Parquet file"),
        (("import", "mine", out, "--name", "tiny"), "there is no form mine"),
        (("import", "a", "b", out, "--name", "tiny"), "one form and one path"),
        (("export", "frame-signals", "--out", tmp_path / "t", *BOTH), "one of them"),
    ):
        result = command(*wrong, cwd=tmp_path, workspace=own.workspace)
        assert result.code == USAGE
        assert reason_pattern in assert_one_error_line(result)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("lerobot",), "licence is unknown"),
        (("rabc", *ALL, "--where", "1; DROP TABLE frames"), "Parser Error"),
        (("rabc", *ALL, "--where", "FROM read_csv('/etc/passwd')"), "not allowed"),
    ],
)
def test_what_is_refused_leaves_nothing(
    built: Built, tmp_path: Path, words: tuple[object, ...], message: str
):
    words = ("export", *words, "--out", tmp_path / "out")
    result = command(*words, cwd=tmp_path, workspace=built.workspace)
    assert (result.code, result.out) == (USAGE, "")
    assert message in assert_one_error_line(result)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", EXPORT_KINDS)
def test_a_setting_that_no_kind_has_is_named_with_those_that_there_are(
    built: Built, tmp_path: Path, kind: str
):
    """In a file and on the command line; what an earlier version
    took as an option says its new form."""
    file = tmp_path / "settings.yaml"
    file.write_text("sead: 1\n")
    words = ("export", kind, "--out", tmp_path / "out", *ALL)
    for wrong, message in (
        (("--set", "sead=1"), f"{kind} has no setting 'sead'"),
        (("--settings", file), f"{kind} has no setting 'sead'"),
        (("--sead", 1), "no such option or setting of the kind: --sead"),
        (("--set", "seed"), "a setting is KEY=VALUE"),
        (("elsewhere",), "no such option or setting of the kind: elsewhere"),
    ):
        result = command(*words, *wrong, cwd=tmp_path, workspace=built.workspace)
        assert result.code == USAGE
        assert message in assert_one_error_line(result)


def test_settings_of_a_file_give_way_to_those_of_the_command_line(built: Built, tmp_path: Path):
    file = tmp_path / "settings.yaml"
    file.write_text("chunk_size: [8, 16]\n")
    out = tmp_path / "out"
    former = ("--chunk-size", 4, "--chunk-size=5")
    words = ("export", "rabc", "--out", out, "--settings", file, *former, *ALL)
    result = command(*words, cwd=tmp_path, workspace=built.workspace)
    assert "note: --chunk_size is a setting now: --set chunk_size=4" in result.err
    assert json.loads((out / "manifest.json").read_text())["options"]["chunk_sizes"] == [4, 5]
