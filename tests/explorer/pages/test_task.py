"""The page of a task: all its runs in one plot, by their own time."""

import re
import shutil

import numpy as np
import pytest

from core.paths import Workspace
from explorer.pages import task as task_page
from tests.kits.lake_kit import change, opened, put_rows
from tests.kits.visitor import visit

TASK = "fold it"
ODD = 6
RUNS = 8
LENGTH = 60


@pytest.fixture(scope="module")
def eight(furnished: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with eight runs of one task, whose progress is straight but for one, which waits to the end."""
    space = Workspace(
        shutil.copytree(furnished.root, tmp_path_factory.mktemp("eight") / "workspace")
    )
    change(space, "DELETE FROM findings")
    for number in range(10, 10 + RUNS):
        change(
            space,
            f"INSERT INTO episode_facts BY NAME SELECT * REPLACE ({number} AS episode_index, '{TASK}' AS task, "
            f"['{TASK}'] AS tasks) FROM episode_facts WHERE episode_index = 0",
        )
        change(
            space,
            f"INSERT INTO episode_content BY NAME SELECT * REPLACE ({number} AS episode_index, {LENGTH} AS num_frames) "
            "FROM episode_content WHERE episode_index = 0",
        )
    rows = []
    segments = []
    active = []
    for number in range(10, 10 + RUNS):
        key = {"dataset": "tiny", "episode_index": number, "chunk": 0, "label_run": "one"}
        line = np.linspace(0, 1, LENGTH)
        if number == 10 + ODD:
            curve = np.where(np.arange(LENGTH) < LENGTH - 2, 0.0, 1.0)
        else:
            curve = line
        rows += [
            key | {"frame_index": f, "segment_index": 0, "progress": float(v)}
            for f, v in enumerate(curve)
        ]
        cut = 55 if number == 10 + ODD else 20 + number % 3
        for k, (name, start, end) in enumerate((("Grasp it", 0, cut), ("Fold it", cut, LENGTH))):
            part = {
                "segment_index": k,
                "name": name,
                "start_frame": start,
                "end_frame": end,
                "completed": True,
            }
            segments.append(
                key | part | {"kind": "step", "step": k, "num_planned": 2, "named": True}
            )
        active.append(key | {"why": "it is the only one"})
    with opened(space) as lake:
        tables = {"progress": rows, "segments": segments, "active_runs": active}
        put_rows(lake, **tables)
    return space


def test_the_run_that_is_unlike_the_others_is_marked_and_leads_to_its_page(eight: Workspace):
    with visit(eight) as client:
        text = client.get("/task/tiny", params={"task": TASK}).text
    link = r'<a href="(/episode/tiny/\d+)" aria-label="tiny \d+"><path class="broad"[^>]*><title>[^<]*</title></path>'
    unlike = re.findall(link + '<path class="line unlike"', text)
    assert unlike == [f"/episode/tiny/{10 + ODD}"]
    assert text.count('class="line single"') == RUNS - 1
    listed = re.findall(r'<tr><th scope="row"><a href="/episode/tiny/(\d+)">', text)
    assert (listed[0], len(listed)) == (str(10 + ODD), 5)
    assert f"{RUNS} labelled runs" in text
    # The step that took this run longer than the others, and those that it left no time for
    assert re.findall(
        rf'<a href="/episode/tiny/{10 + ODD}" aria-label="{10 + ODD}: [\d.]+ s">', text
    )
    steps = re.findall(r'<th scope="row">(Grasp it|Fold it)</th><td class="n">(\d+)</td>', text)
    assert steps == [("Grasp it", str(RUNS)), ("Fold it", str(RUNS))]


def test_quantiles_are_over_all_runs_by_their_own_time(eight: Workspace):
    with visit(eight) as client, client.app.state.explorer.corpus.reading() as reader:  # type: ignore[attr-defined]
        runs = [{"episode_index": number, "num_frames": LENGTH} for number in range(10, 10 + RUNS)]
        curves = task_page._curves(reader, "tiny", runs)
    assert curves.shape == (RUNS, task_page.PLACES)
    usual_curves = np.delete(curves, ODD, axis=0)
    assert np.abs(usual_curves - np.linspace(0, 1, task_page.PLACES)).max() < 0.02
    assert curves[ODD, :95].max() == 0


def test_a_task_that_is_not_there_is_a_sentence(eight: Workspace):
    with visit(eight) as client:
        answer = client.get("/task/tiny", params={"task": "<b>none</b>"})
        assert (answer.status_code, "&lt;b&gt;none" in answer.text) == (404, True)
        assert client.get("/task/none").status_code == 404
        assert (
            'href="/task/tiny?task=put%20the%20cube%20on%20the%20plate"'
            in client.get("/episode/tiny/0").text
        )
