"""`build --dry-run` for every annotator: what a build then does, and why; read only, without a word written."""

import json

import pytest

from tests.kits.files import files_of
from tests.kits.small_sources import RECORDINGS, write_v2
from tests.kits.words_kit import Case, checked


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("foreseen")
    case = Case("lerobot_v2", folder, write_v2(folder / "arm", RECORDINGS[:4]))
    assert (
        "was not built yet" in checked(case.run("build", "--source", case.source, "--dry-run")).out
    )
    assert not case.workspace.exists()
    checked(case.run("build", "--source", case.source, "--workers", 1))
    return case


def foreseen(case: Case, *options: object) -> list[dict]:
    files_before = files_of(case.workspace)
    answer = checked(case.run("build", *options, "--dry-run", "--json"))
    assert files_of(case.workspace) == files_before
    return json.loads(answer.out)["work"]


@pytest.mark.parametrize("annotator", ["auto", "motion", "native", "transfer", "vlm"])
def test_each_annotator(case: Case, annotator: str) -> None:
    work = {
        row["stage"]: row for row in foreseen(case, "--dataset", "arm", "--annotator", annotator)
    }
    assert "frames" not in work
    if annotator in ("native", "vlm"):
        assert work["segments"]["why"] == f"dataset.annotator is {annotator}, was not set"
        assert {name: row["chunks"] for name, row in work.items()}["segments"] == 1
    else:  # what the source and its runs give is what motion says
        assert "segments" not in work


def test_what_people_said_and_what_changed_at_the_source(case: Case) -> None:
    assert foreseen(case, "--dataset", "arm") == []
    checked(case.run("references", "add", "arm", 0))
    reasons_by_stage = {row["stage"]: row["why"] for row in foreseen(case, "--dataset", "arm")}
    assert (
        "people showed runs" in reasons_by_stage["transfer"]
        or "it rests on embeddings" in reasons_by_stage["transfer"]
    )
    (case.source / "meta/info.json").touch()
    [listing, *later_rows] = foreseen(case, "--dataset", "arm")
    assert listing["stage"] == "episodes"
    assert listing["why"].startswith("files of the source changed")
    assert all(row["what"] != "made again" for row in later_rows)
