"""Commands that a page runs: with what it offers and nothing else, in the workspace alone, one at a time."""

import sys
import time
from pathlib import Path

import pytest

from core.web import access_for
from explorer import jobs
from explorer.site import Options
from tests.kits.lake_kit import change
from tests.kits.patience import PATIENCE_S
from tests.kits.visitor import post, visit

EXPORT = "/api/running/export"
WANTED = {"kind": "datasets", "name": "mine", "query": "split=train", "snapshot": 3}
ADAPT = "/api/running/adapt"
WANTED_MODEL = {"dataset": "tiny", "episode": "0", "model": "mine"}
MODEL = (
    "INSERT INTO checkpoints BY NAME SELECT 'mine' AS training_run, 1 AS step, 'models/x' AS path"
)
OF_EPISODE = "/running/adapt?dataset=tiny&episode=0"


@pytest.mark.parametrize(
    "name", ["../out", "/tmp/out", "a/b", "", ".", "-x", "a" * 81, "a b", "x;y"]
)
def test_what_is_typed_is_a_name(own, name: str):
    change(own.space, MODEL)
    with visit(own.space) as client:
        assert post(client, EXPORT, WANTED | {"name": name}).status_code == 422
        if name:
            assert post(client, ADAPT, WANTED_MODEL | {"recipe": name}).status_code == 422
    assert not (own.space.root / "exports").exists()


def test_what_is_chosen_is_one_of_the_choices(own):
    with visit(own.space) as client:
        assert "The corpus has no trained model yet" in client.get(OF_EPISODE).text
        assert post(client, EXPORT, WANTED | {"kind": "hub"}).status_code == 422
        for model in ("mine", "/etc/passwd", ""):
            assert post(client, ADAPT, WANTED_MODEL | {"model": model}).status_code == 422
    change(own.space, MODEL)
    with visit(own.space) as client:
        page_text = client.get(OF_EPISODE).text
        assert "<option>mine</option>" in page_text
        assert "proccorpus adapt --dataset=tiny --episode=0 --model=mine" in page_text
        for wrong in ({"episode": "99"}, {"episode": "x"}, {"dataset": "none"}):
            assert post(client, ADAPT, WANTED_MODEL | wrong).status_code in (404, 422)


def test_a_link_out_of_the_workspace_is_no_way_there(own, tmp_path: Path):
    (own.space.root / "exports").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    with visit(own.space) as client:
        assert post(client, EXPORT, WANTED).status_code == 422


def test_an_explorer_for_others_or_of_a_snapshot_starts_none(own):
    for options in (Options(access=access_for("0.0.0.0", token="t" * 32)), Options(snapshot=1)):
        with visit(own.space, options) as client:
            client.headers["authorization"] = f"Bearer {'t' * 32}"
            assert post(client, EXPORT, WANTED).status_code == 403
            assert post(client, ADAPT, WANTED_MODEL).status_code == 403


def test_one_at_a_time_with_its_progress_and_its_end(own, monkeypatch: pytest.MonkeyPatch):
    out = own.space.root / "exports" / "mine"
    text = (
        "import sys, time, pathlib; out = pathlib.Path([a for a in sys.argv if a.startswith('--out=')][0][6:]);"
        "out.mkdir(parents=True); (out / 'part').write_text('x' * 5000); print('error: the disk is full');"
        "time.sleep(60)"
    )
    with visit(own.space) as client:
        assert "Run it here" in client.get("/running/export?query=split%3Dtrain").text
        monkeypatch.setattr(jobs, "program", lambda: [sys.executable, "-c", text])
        assert post(client, EXPORT, WANTED).status_code == 202
        assert post(client, EXPORT, WANTED).status_code == 409
        until = time.monotonic() + PATIENCE_S
        while "1 file, 5 kB written" not in (page_text := client.get("/running/export").text):
            assert time.monotonic() < until, page_text
        assert "data-running" in page_text
        process = client.app.state.explorer.jobs["export"].process  # type: ignore[attr-defined]  # the explorer's own app
        process.kill()
        process.wait()
        page_text = client.get("/running/export").text
        assert "failed: the disk is full" in page_text
        assert f"--out={out}" in page_text
        assert "--where=SELECT" in page_text.replace("&#39;", "").replace("'", "")


def test_a_selection_is_exported(own):
    with visit(own.space) as client:
        assert post(client, EXPORT, WANTED).status_code == 202
        until = time.monotonic() + PATIENCE_S
        while "data-running" in (page_text := client.get("/running/export").text):
            assert time.monotonic() < until
            time.sleep(0.5)
    assert "is done" in page_text
    assert (own.space.root / "exports" / "mine" / "manifest.json").is_file()
