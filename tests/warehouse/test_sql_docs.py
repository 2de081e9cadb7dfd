"""docs/sql.md and docs/examples/corpus.ipynb: every question is answered and every cell runs."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from traitlets.config import Config

import warehouse
from core.paths import ROOT
from core.tables import TABLES
from tests.kits.lake_kit import query
from tests.kits.made_corpus import Made
from warehouse.lake import Lake

DOCS = ROOT / "docs"
QUESTIONS = re.findall(r"^### (.+?)\n.*?^```sql\n(.*?)^```", (DOCS / "sql.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def corpus(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus with something of everything that is asked for: a second run, a call, a failure, a loss."""
    made = made.copy(tmp_path_factory.mktemp("asked"))
    lake = Lake(made.space)
    (dataset, run) = lake.rows("SELECT dataset, label_run FROM active_runs LIMIT 1")[0]
    for table, changed in (
        ("progress", "1 - progress / 2 AS progress"),
        ("label_runs", "annotator || ' too' AS annotator"),
    ):
        copy = f"SELECT * REPLACE ('other' AS label_run, {changed}) FROM {table} WHERE label_run = '{run}'"
        lake.con.execute(f"INSERT INTO {table} {copy}")
    lake.con.execute(
        "INSERT INTO label_disagreement BY NAME SELECT dataset, episode_index, chunk, label_run, 'other' AS other_run, "
        "0.25 AS mean_difference FROM active_runs"
    )
    last = "SELECT max(frame_index) FROM progress WHERE episode_index = 0"
    lake.con.execute(f"UPDATE progress SET progress = 0 WHERE episode_index = 0 AND frame_index = ({last})")
    lake.con.execute("UPDATE episode_facts SET success = false WHERE episode_index = 0")
    lake.con.execute("UPDATE label_quality SET contradicts = true WHERE episode_index = 0")
    lake.con.execute("UPDATE label_quality SET falls = 1, worst_fall = 0.5 WHERE episode_index = 0")
    lost = {"dataset": dataset, "episode_index": 4, "stage": "episodes", "reason": "known_bad", "severity": "unusable"}
    call = {
        "call_key": "k", "label_run": "other", "dataset": dataset, "episode_index": 0, "stage": "segment",
        "prompt_tokens": 900, "completion_tokens": 100, "latency_s": 1.5, "cost_usd": 0.01, "status": "ok",
    }  # fmt: skip
    lake.upsert(
        "rows to ask for",
        findings=TABLES["findings"].rows([lost]),
        vlm_calls=TABLES["vlm_calls"].rows([call]),
    )
    lake.con.close()
    return made.space.root


def test_there_are_twelve_questions():
    assert len(QUESTIONS) == 12


@pytest.mark.parametrize(("title", "sql"), QUESTIONS, ids=[t for t, _ in QUESTIONS])
def test_question_is_answered(corpus: Path, title: str, sql: str):
    with warehouse.connect(corpus) as con:
        rows = query(con, sql).to_pylist()
    assert rows, title
    assert all(any(v is not None for v in r.values()) for r in rows)


def test_answers_are_right(corpus: Path):
    asked = dict(QUESTIONS)
    with warehouse.connect(corpus) as con:
        (cost,) = query(con, asked["What does an hour of video cost to annotate?"]).to_pylist()
        (failed,) = query(con, asked["How far do failed runs get?"]).to_pylist()
        (left_out,) = query(con, asked["What is left out, and why?"]).to_pylist()
    assert cost["usd_per_hour"] == pytest.approx(0.01 / cost["hours"])
    assert cost["tokens_per_hour"] == pytest.approx(1000 / cost["hours"])
    assert failed["failed"] == 1
    assert (left_out["reason"], left_out["episodes"]) == ("known_bad", 1)


@pytest.mark.slow
def test_notebook_runs(corpus: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PROCCORPUS_WORKSPACE", str(corpus))
    notebook = nbformat.read(DOCS / "examples" / "corpus.ipynb", 4)
    NotebookClient(
        notebook,
        timeout=300,
        startup_timeout=300,
        resources={"metadata": {"path": str(DOCS.parent)}},
        config=Config(KernelManager={"transport": "ipc"}),  # ports chosen beforehand may be taken by other tests
    ).execute()
    outputs = [o for c in notebook.cells for o in c.get("outputs", [])]
    assert any("image/png" in o.get("data", {}) for o in outputs)
    assert "contradict" in str(outputs[1]["data"])
