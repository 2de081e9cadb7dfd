"""The documentation below /docs: its own scripts and no other, nothing outside its folder."""

import base64
import hashlib
from pathlib import Path

import pytest

from core.metrics import sentence_of
from core.paths import ROOT
from explorer.pages import docs
from explorer.site import DOCS, docs_page
from tests.docs.test_pages import anchors

SCRIPT = 'var palette = "dark";'


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site of one page, with a script in it, and a file outside it."""
    folder = tmp_path / "docs_site"
    folder.mkdir()
    (folder / "index.html").write_text(
        f"<title>Start</title><script>{SCRIPT}</script><script src=a.js></script>"
    )
    (folder / "a.js").write_text("1")
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "out").symlink_to(tmp_path / "secret.txt")
    monkeypatch.setattr(docs, "SITE", folder)
    return folder


def test_a_page_may_run_its_own_scripts_alone(client, site: Path):
    answer = client.get("/docs", follow_redirects=True)
    assert (answer.status_code, "Start" in answer.text) == (200, True)
    policy = answer.headers["content-security-policy"]
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    assert f"script-src 'self' 'sha256-{digest}';" in policy
    assert "http" not in policy
    assert client.get("/docs/a.js").text == "1"


@pytest.mark.parametrize(
    "path", ["out", "%2e%2e/secret.txt", "..%2fsecret.txt", "none.html", "/etc/passwd"]
)
def test_nothing_outside_the_site_is_served(client, site: Path, path: str):
    answer = client.get(f"/docs/{path}")
    assert answer.status_code == 404
    assert "secret" not in answer.text.replace("secret.txt", "")


def test_without_the_site_the_page_says_how_it_is_built(
    client, site: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(docs, "SITE", site.parent / "none")
    answer = client.get("/docs/metrics.html")
    assert answer.status_code == 200
    assert f"make -C {ROOT} site" in answer.text
    assert str(ROOT / "docs" / "metrics.md") in answer.text
    # An installed package has no make
    monkeypatch.setattr(docs, "ROOT", site.parent)
    installed = client.get("/docs/metrics.html").text
    assert "made without its documentation" in installed
    assert "make -C" not in installed


def test_every_page_leads_to_its_page_of_the_documentation():
    for address in DOCS.values():
        page, _, anchor = address.partition("#")
        source = ROOT / "docs" / page.replace(".html", ".md")
        assert source.is_file(), address
        assert not anchor or anchor in anchors(source), address
    assert docs_page("/episode/tiny/0") == DOCS["/episode"]
    assert docs_page("/episodes") == DOCS["/episodes"]
    assert docs_page("/nowhere") == DOCS["/"]


def test_metrics_have_their_sentence_and_a_link(client):
    link = '<a href="/docs/metrics.html">mae</a>'
    assert f"{link}: {sentence_of('mae')}." in client.get("/leaderboard?metric=mae").text
