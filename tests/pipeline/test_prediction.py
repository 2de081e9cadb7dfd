"""`dry-run` on the shipped sample: by the listing, by the lake, and what is left to do."""

from itertools import product
from pathlib import Path

from core.paths import Workspace
from core.tables import TABLES
from pipeline.config import load_config, resolve
from pipeline.prediction import dataset_cost
from tests.kits.made_corpus import built, with_stages
from warehouse.lake import open_lake

CONFIG = 'datasets = ["sim_short"]\nannotator = "vlm"\n[vlm]\nmodel = "m"\nruns_per_task = "all"\n'
EPISODES = (0, 1, 2, 3)


def test_a_listing_tells_as_much_as_the_lake(tmp_path: Path):
    (tmp_path / "vlm.toml").write_text(CONFIG)
    build = load_config(tmp_path / "vlm.toml")[0].model_copy(update={"episodes": EPISODES})
    space = Workspace(tmp_path / "workspace")
    listed = dataset_cost(None, build, space.sources)
    assert (listed.known, listed.labelled, listed.pilots, listed.left_out) == (0, 0, 0, 0)
    stages = listed.prediction.stages
    assert stages["plan"].calls == stages["segment"].calls == len(EPISODES)
    built(with_stages(build, annotator="motion"), space)
    lake = open_lake(space)
    known_cost = dataset_cost(lake, resolve(lake, build), space.sources)
    assert (known_cost.known, known_cost.labelled) == (len(EPISODES), 0)
    assert stages == known_cost.prediction.stages

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
    call = {
        "dataset": "sim_short",
        "label_run": run,
        "status": "ok",
        "num_images": 1,
        "build_id": "b",
    }
    calls = [
        call
        | {
            "episode_index": k,
            "stage": s,
            "call_key": f"{k}{s}",
            "prompt_tokens": 1000,
            "completion_tokens": 50,
        }
        for k, s in product((0, 1), ("plan", "segment", "verify", "reason"))
    ]
    rows = {"episode_labels": label_rows, "segments": spans, "vlm_calls": calls}
    lake.upsert("labels", **{name: TABLES[name].rows(r) for name, r in rows.items()})
    remaining_cost = dataset_cost(lake, build, space.sources)
    assert (remaining_cost.labelled, remaining_cost.pilots, remaining_cost.prediction.episodes) == (
        2,
        2,
        2,
    )
    plan = remaining_cost.prediction.stages["plan"]
    assert round(plan.completion_tokens / plan.calls) == 50
    summary = remaining_cost.summary()
    assert (
        "2 episodes to annotate, 2 of them decoded; calibrated by 2 labelled episodes; 2 are labelled"
        in summary
    )
    repeated_cost = dataset_cost(lake, build, space.sources, from_scratch=True)
    assert (repeated_cost.prediction.episodes, repeated_cost.facts()["episodes"]) == (4, 4)
