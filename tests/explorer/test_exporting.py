"""Exporting a selection from the gallery: into the workspace and nowhere else, with its progress, one at a time."""

import sys
import time
from pathlib import Path

import pytest

from core.web import access_for
from explorer import jobs
from explorer.site import Options
from tests.kits.patience import PATIENCE_S
from tests.kits.visitor import post, visit

WANTED = {"kind": "datasets", "name": "mine", "query": "split=train"}


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "a/b", "", ".", "-x", "a" * 81])
def test_an_export_goes_into_the_workspace_alone(own, name: str):
    with visit(own.space) as client:
        assert post(client, "/api/exports", WANTED | {"name": name}).status_code == 422
        assert post(client, "/api/exports", WANTED | {"kind": "hub"}).status_code == 422
    assert not (own.space.root / "exports").exists()


def test_a_link_out_of_the_workspace_is_no_way_there(own, tmp_path: Path):
    (own.space.root / "exports").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    with visit(own.space) as client:
        assert post(client, "/api/exports", WANTED).status_code == 422


def test_an_explorer_for_others_or_of_a_snapshot_starts_none(own):
    for options in (Options(access=access_for("0.0.0.0", token="t" * 32)), Options(snapshot=1)):
        with visit(own.space, options) as client:
            client.headers["authorization"] = f"Bearer {'t' * 32}"
            assert post(client, "/api/exports", WANTED).status_code == 403


def test_one_at_a_time_with_its_progress_and_its_end(own, monkeypatch: pytest.MonkeyPatch):
    out = own.space.root / "exports" / "mine"
    text = (
        "import sys, time, pathlib; out = pathlib.Path([a for a in sys.argv if a.startswith('--out=')][0][6:]);"
        "out.mkdir(parents=True); (out / 'part').write_text('x' * 5000); print('error: the disk is full');"
        "time.sleep(60)"
    )
    with visit(own.space) as client:
        assert "Export here" in client.get("/exports").text
        monkeypatch.setattr(jobs, "program", lambda: [sys.executable, "-c", text])
        assert post(client, "/api/exports", WANTED).status_code == 202
        assert post(client, "/api/exports", WANTED).status_code == 409
        until = time.monotonic() + PATIENCE_S
        while "1 file, 5 kB written" not in (page_text := client.get("/exports").text):
            assert time.monotonic() < until, page_text
        assert "data-running" in page_text
        process = client.app.state.explorer.jobs["export"].process  # type: ignore[attr-defined]  # the explorer's own app
        process.kill()
        process.wait()
        page_text = client.get("/exports").text
        assert "The export failed: the disk is full." in page_text
        assert f"--out={out}" in page_text
        assert "--where=SELECT" in page_text.replace("&#39;", "").replace("'", "")


def test_a_selection_is_exported(own):
    with visit(own.space) as client:
        assert post(client, "/api/exports", WANTED).status_code == 202
        until = time.monotonic() + PATIENCE_S
        while "data-running" in (page_text := client.get("/exports").text):
            assert time.monotonic() < until
            time.sleep(0.5)
    assert "Exported as datasets" in page_text
    assert (own.space.root / "exports" / "mine" / "manifest.json").is_file()
