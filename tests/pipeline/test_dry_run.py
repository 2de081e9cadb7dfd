"""`build --dry-run` for every annotator: what a build then does, and why; nothing is written."""

import json

import pytest

from core.paths import Workspace
from tests.kits.files import files_of
from tests.kits.lake_kit import change
from tests.kits.small_sources import RECORDINGS, write_v2
from tests.kits.words_kit import Case, checked


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("foreseen")
    case = Case("lerobot_v2", folder, write_v2(folder / "arm", RECORDINGS[:4]))
    unbuilt = checked(case.run("build", "--source", case.source, "--dry-run"))
    assert "was not built yet" in unbuilt.out
    assert not case.workspace.exists()
    checked(case.run("build", "--source", case.source, "--workers", 1))
    return case


def foreseen(case: Case, *options: object) -> list[dict]:
    files_before = files_of(case.workspace)
    answer = checked(case.run("build", *options, "--dry-run", "--format", "json"))
    assert files_of(case.workspace) == files_before
    return json.loads(answer.out)["work"]


@pytest.mark.parametrize("annotator", ["auto", "transfer", "vlm"])
def test_each_annotator(case, annotator) -> None:
    rows = foreseen(case, "--dataset", "arm", "--annotator", annotator)
    work = {row["stage"]: (row["chunks"], row["why"]) for row in rows}
    assert "frames" not in work
    if annotator == "vlm":
        assert work["segments"] == (1, f"dataset.annotator is {annotator}, was not set")
    else:  # what the source and its runs give is what motion says
        assert "segments" not in work


def corrected_text(case: Case) -> None:
    change(Workspace(case.workspace), TEXT_DIFFERS)
    for name in ("tasks", "episodes"):
        path = case.source / f"meta/{name}.jsonl"
        path.write_text(path.read_text().replace("red cube", "crimson cube"))


def judged_failed(case: Case) -> None:
    outcomes = case.folder / "outcomes.csv"
    outcomes.write_text("episode_index,success\n1,false\n")
    checked(case.run("say", "outcome", "arm", "--set", f"file={outcomes}"))


TEXT_DIFFERS = """INSERT INTO findings BY NAME SELECT dataset, episode_index, 'text_differs' AS reason,
[{'detail': format('its text "{}"', task)}] AS stretches FROM episode_facts"""
EDITS = (
    (corrected_text, "files of the source changed"),
    (judged_failed, "people said how runs ended"),
)


@pytest.mark.parametrize(("edit", "reason"), EDITS)
def test_a_change_is_made_by_the_stages_that_read_it(case, edit, reason) -> None:
    """A corrected text, or an outcome, decodes nothing."""
    runs = "SELECT stage, snapshot FROM stage_runs WHERE chunk = 0 AND stage <> 'episodes'"
    before = dict(case.rows(runs))
    edit(case)
    [listing, *later_rows] = foreseen(case, "--dataset", "arm")
    assert (listing["stage"], listing["why"]) == ("episodes", reason)
    assert all(row["what"] != "made again" for row in later_rows)
    checked(case.run("build", "--dataset", "arm", "--workers", 1))
    stages = {stage for stage, snapshot in case.rows(runs) if snapshot != before[stage]}
    assert stages == {"segments", "progress", "samples", "shards"}
    # What the checkup said of a text goes with the text
    details = case.rows(
        "SELECT detail, task FROM run_checks JOIN episode_facts USING (episode_index)"
    )
    assert [detail for detail, task in details if task not in detail] == []
    assert details


def test_what_people_said(case) -> None:
    assert foreseen(case, "--dataset", "arm") == []
    checked(case.run("say", "reference", "arm", 0))
    [reason] = [
        row["why"] for row in foreseen(case, "--dataset", "arm") if row["stage"] == "transfer"
    ]
    assert "people showed runs" in reason or "it rests on embeddings" in reason
