"""The bill of `build --dry-run`, before anything was asked and after the first runs."""

from itertools import product
from pathlib import Path

import pytest

from core.paths import Workspace
from core.tables import TABLES
from pipeline.config import load_config, resolve
from pipeline.prediction import model_cost
from tests.kits.made_corpus import built, with_stages
from warehouse.lake import open_lake

CONFIG = """datasets = ["sim_short"]
annotator = "vlm"
[vlm]
model = "m"
runs_per_task = "all"
cheap_models = ["small"]
[vlm.price]
usd_per_million_prompt_tokens = 2
[vlm.cheap_price]
usd_per_million_prompt_tokens = 1
"""
EPISODES = (0, 1, 2, 3)


def test_the_bill_is_what_the_first_runs_took(tmp_path: Path):
    (tmp_path / "vlm.toml").write_text(CONFIG)
    build = load_config(tmp_path / "vlm.toml")[0].model_copy(update={"episodes": EPISODES})
    space = Workspace(tmp_path / "workspace")
    listed = model_cost(None, build, space.sources)
    assert (listed.episodes, listed.labelled, listed.measured) == (len(EPISODES), 0, 0)
    assert (
        "4 episodes to annotate; 0 are labelled already. What one takes is not known"
        in listed.summary()
    )
    built(with_stages(build, annotator="motion"), space)
    lake = open_lake(space)
    assert model_cost(lake, resolve(lake, build), space.sources) == listed

    run = build.label_run().id
    key_columns = {"dataset": "sim_short", "chunk": 0, "label_run": run}
    label_rows = [key_columns | {"episode_index": k, "plan": ["a", "b"]} for k in (0, 1)]
    span = {
        "name": "a",
        "start_frame": 0,
        "end_frame": 9,
        "num_planned": 2,
        "kind": "step",
        "completed": True,
    }
    spans = [
        key_columns | span | {"episode_index": k, "segment_index": i}
        for k, i in product((0, 1), range(3))
    ]
    # Another build asked the same once more, and one question had no answer
    call = {"dataset": "sim_short", "label_run": run, "num_images": 1, "prompt_tokens": 1000}
    sendings = product(
        (0, 1), ("plan1", "segment1", "segment2"), (("b1", "cut"), ("b2", "ok"), ("b3", "ok"))
    )
    calls = []
    for k, name, (build_id, status) in sendings:
        of_call = {
            "episode_index": k,
            "stage": name[:-1],
            "model": "small" if name == "plan1" else "m",
            "call_key": f"{k}{name}",
            "completion_tokens": 50,
        }
        calls.append(call | of_call | {"build_id": build_id, "status": status})
    rows = {"episode_labels": label_rows, "segments": spans, "vlm_calls": calls}
    lake.upsert("labels", **{name: TABLES[name].rows(r) for name, r in rows.items()})
    left = model_cost(lake, build, space.sources)
    assert (left.episodes, left.labelled, left.measured) == (2, 2, 2)
    facts = left.facts()
    names = ("model", "stage", "calls", "prompt_tokens", "completion_tokens")
    assert [tuple(map(row.get, names)) for row in facts["stages"]] == [
        ("m", "segment", 4, 4000, 200),
        ("small", "plan", 2, 2000, 100),
        ("all", "all", 6, 6000, 300),
    ]
    assert facts["usd"] == pytest.approx(4000 * 2e-6 + 2000 * 1e-6)
    assert "2 are labelled already; as measured on 2: 0.00 GPU-hours, 0.01 USD" in left.summary()
    anew = model_cost(lake, build, space.sources, from_scratch=True)
    assert (anew.episodes, anew.facts()["stages"][-1]["calls"]) == (4, 12)
