"""Budgets are kept by several processes together, and rows are those of the lake's table."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from annotate.model_client.calls import VlmError
from annotate.model_client.responses import ResponseStore
from core.paths import ROOT

CALL = {
    "call_key": "k1", "build_id": "b1", "dataset": "demo", "episode_index": 3, "label_run": "run", "stage": "plan",
    "model": "m", "prompt_version": "v", "num_images": 16,
}  # fmt: skip


@pytest.fixture
def ledger(tmp_path: Path) -> ResponseStore:
    return ResponseStore(tmp_path / "responses")


def test_money_is_held_back_at_its_estimate_and_counted_at_its_truth(ledger: ResponseStore):
    first = ledger.reserve(CALL, 0.5, max_cost=1.0)
    ledger.reserve(CALL, 0.5, max_cost=1.0)
    with pytest.raises(VlmError, match=r"1 USD .* no room"):
        ledger.reserve(CALL, 0.25, max_cost=1.0)
    ledger.settle(first, status="ok", cost_usd=0.125)
    assert ledger.spent("b1") == (2, 0.625)
    ledger.reserve(CALL, 0.25, max_cost=1.0)
    assert ledger.spent("b1") == (3, 0.875)


def test_what_was_under_way_in_a_killed_process_stays_counted(ledger: ResponseStore):
    code = (
        "import json, os, sys; from pathlib import Path; from annotate.model_client.responses import ResponseStore\n"
        "ResponseStore(Path(sys.argv[1])).reserve(json.loads(sys.argv[2]), 0.25)\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, ledger.root, json.dumps(CALL)], cwd=ROOT, timeout=120)
    assert ledger.spent("b1") == (1, 0.25)
    assert [(r["status"], r["cost_usd"]) for r in ledger.calls("b1")] == [("sent", 0.25)]


def test_the_ledger_of_an_earlier_version_is_taken_over_once(ledger: ResponseStore):
    ledger.settle(ledger.reserve(CALL, 0.5), status="ok", cost_usd=0.25)
    ledger.db.execute("DROP TABLE replies")
    ledger.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    ledger.close()
    ledger.path.rename(ledger.path.parent / "ledger.sqlite")
    for _ in range(2):
        again = ResponseStore(ledger.root)
        assert again.spent("b1") == (1, 0.25)
        assert [row["status"] for row in again.calls("b1")] == ["ok"]
        again.close()
    assert [path.name for path in ledger.path.parent.glob("ledger*")] == []
