"""Embeddings in a build: of the one decoding or of one of their own, when they are made, and what makes them stale."""

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from annotate.embeddings import encoders, passing, weights
from annotate.embeddings.config import EmbeddingsConfig
from core.paths import Workspace
from pipeline.build import run_build
from pipeline.config import DatasetBuild, resolve
from pipeline.plan import CURRENT, STALE, plan
from pipeline.stage import Output, StageContext, Step
from pipeline.stages import stage_specs
from pipeline.stages.embeddings import STAGE
from tests.kits.made_corpus import Made
from tests.pipeline.stages.test_corrections import say
from warehouse.lake import Lake, digest
from warehouse.lake.references import reference_tasks


def looking(build: DatasetBuild, **changes: Any) -> DatasetBuild:
    """The build with embeddings by grey pictures, unless it is told otherwise."""
    config = EmbeddingsConfig(**{"when": "always", "encoder": "grey", "grid": 2} | changes)
    return build.model_copy(update={"stages": build.stages.model_copy(update={"embeddings": config})})


@pytest.fixture(scope="module")
def fresh(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Built from nothing by one worker, with embeddings."""
    space, build = Workspace(tmp_path_factory.mktemp("embedded")), looking(made.build)
    report = run_build(space, [build], workers=1)
    assert not report.failed
    return Made(space, build, report)


@pytest.fixture
def fresh_copy(fresh: Made, made: Made, tmp_path: Any) -> Made:
    copied = fresh.copy(tmp_path)
    return Made(copied.space, looking(copied.build), copied.report)


def not_current(lake: Lake, build: DatasetBuild) -> set[tuple[str, int | None]]:
    fingerprint = build.source(lake.workspace.sources).fingerprint()
    steps = plan(lake, {"tiny": stage_specs(build)}, {"tiny": fingerprint})
    return {(s.stage.name, s.chunk) for s in steps if s.status != CURRENT}


def stage_output(lake: Lake, build: DatasetBuild, chunk: int, threads: int = 1) -> Output:
    """What the stage makes without what another has kept for it."""
    step = Step(STAGE.spec(build), build.name, chunk, STALE, "in")
    source = replace(build.source(lake.workspace.sources), decoding_threads=threads)
    return STAGE.run(StageContext(lake, build, step, source))


# Of one decoding, or of one of their own


def test_pictures_are_looked_at_while_they_are_decoded_for_the_measurements(fresh: Made):
    runs = [r for r in fresh.report.done if r.run.stage == "embeddings"]
    assert [r.run.chunk for r in runs] == [0, 1, 2]
    assert sum(int(r.numbers["decoded_frames"]) for r in runs) == 0
    assert {r.numbers["device"] for r in runs} == {"cpu"}
    expected = fresh.rows(
        "SELECT episode_index, usable_cameras[1], list(frame_index ORDER BY frame_index) FROM episode_content c "
        "JOIN (SELECT episode_index, camera, frame_index FROM frames) f USING (episode_index) "
        "WHERE f.camera = usable_cameras[1] AND frame_index % greatest(1, ceil(fps / 5)) = 0 GROUP BY ALL ORDER BY 1"
    )
    stored = (
        "SELECT episode_index, camera, list(frame_index ORDER BY frame_index) FROM embeddings GROUP BY ALL ORDER BY 1"
    )
    assert fresh.rows(stored) == expected
    assert sum(int(r.numbers["embedded_pictures"]) for r in runs) == sum(len(frames) for *_, frames in expected)


def test_a_decoding_of_their_own_gives_the_same(fresh: Made):
    lake = Lake(fresh.space, read_only=True)
    again = [stage_output(lake, fresh.build, chunk) for chunk in (0, 1, 2)]
    assert all(output.findings == [] for output in again)
    tables = pa.concat_tables([output.tables["embeddings"] for output in again])
    assert sum(int(output.numbers["decoded_frames"]) for output in again) == tables.num_rows, "no frame but those"
    stored = lake.arrow("SELECT * FROM embeddings ORDER BY episode_index, camera, frame_index")
    assert tables.cast(stored.schema).equals(stored)
    lake.con.close()


def test_any_number_of_workers_gives_the_same(fresh: Made, tmp_path: Any):
    space = Workspace(tmp_path / "two")
    report = run_build(space, [fresh.build], workers=2)
    assert not report.failed
    assert digest(Lake(space, read_only=True)) == digest(Lake(fresh.space, read_only=True))


def test_mobilenet_gives_the_same_by_any_number_of_threads(fresh: Made):
    if missing := encoders.lack(EmbeddingsConfig()):
        pytest.skip(missing)
    lake, build = Lake(fresh.space, read_only=True), looking(fresh.build, encoder="mobilenet_v2", device="cpu")
    one, other = (stage_output(lake, build, 0, threads).tables["embeddings"] for threads in (1, 2))
    assert one.num_rows > 0
    assert one.equals(other)
    lake.con.close()


def test_a_video_that_is_gone_is_a_finding(fresh_copy: Made):
    lake, build = Lake(fresh_copy.space), fresh_copy.build
    ((uri,),) = lake.rows("SELECT DISTINCT videos[1].uri FROM episode_facts WHERE episode_index = 0")
    right = stage_output(lake, build, 0)
    (fresh_copy.source / uri).write_bytes(b"")
    output = stage_output(lake, build, 0)
    lost = {f.episode_index for f in output.findings or ()}
    assert 0 in lost
    assert {(f.reason, f.severity) for f in output.findings or ()} == {("pictures_lost", "warning")}
    left = [e for e in right.tables["embeddings"]["episode_index"].to_pylist() if e not in lost]
    assert output.tables["embeddings"]["episode_index"].to_pylist() == left
    lake.con.close()


# What makes them stale


def test_they_are_stale_exactly_when_encoder_rate_grid_or_cameras_change(fresh: Made):
    lake, build = Lake(fresh.space, read_only=True), fresh.build
    assert not_current(lake, build) == set()
    for same in ({"device": "cpu"}, {"when": "always"}):
        assert not_current(lake, looking(build, **same)) == set()
    all_chunks = {("embeddings", chunk) for chunk in (0, 1, 2)}
    for change in ({"hz": 2.5}, {"grid": 4}, {"size_px": 96}, {"cameras": "all"}, {"encoder": "torchvision:resnet18"}):
        assert not_current(lake, looking(build, **change)) == all_chunks, change
    assert not_current(lake, looking(build, when="never")) == set(), "nobody asks for them"
    lake.con.close()


def test_they_follow_the_measurements_alone(fresh_copy: Made):
    lake, build = Lake(fresh_copy.space), fresh_copy.build
    lake.con.execute("UPDATE stage_runs SET output_hash = 'other' WHERE stage = 'frames' AND chunk = 1")
    assert ("embeddings", 1) in not_current(lake, build)
    assert not {("embeddings", 0), ("embeddings", 2)} & not_current(lake, build)
    lake.con.execute("UPDATE stage_runs SET output_hash = 'other' WHERE stage = 'segments' AND chunk = 0")
    assert ("embeddings", 0) not in not_current(lake, build)
    lake.con.close()


# When they are made


def test_a_confirmed_label_asks_for_them_where_other_runs_have_none(own: Made, corpus: Lake):
    build = looking(own.build, when="references")
    assert reference_tasks(corpus, "tiny") == []
    assert not resolve(corpus, build).has_embeddings
    say(corpus)
    ((task,),) = corpus.rows("SELECT task FROM episode_facts WHERE episode_index = 2")
    others = corpus.rows("SELECT count(*) FROM episode_facts WHERE task = ? AND episode_index <> 2", [task])[0][0]
    assert reference_tasks(corpus, "tiny") == ([task] if others else [])
    assert resolve(corpus, build).has_embeddings == (others > 0)
    report = run_build(own.space, [build], workers=1)
    assert not report.failed
    assert {r.run.chunk for r in report.done if r.run.stage == "embeddings"} == ({0, 1, 2} if others else set())


def test_only_labels_that_others_can_be_made_of_ask_for_them(own: Made, corpus: Lake):
    say(corpus)
    build = resolve(corpus, looking(own.build, when="references"))
    assert build.has_references
    for annotator in ("motion", "vlm"):
        named = build.model_copy(update={"dataset": build.dataset.model_copy(update={"annotator": annotator})})
        assert not named.has_embeddings, "this one carries nothing over"
    assert not looking(build, when="never").has_embeddings


def test_where_the_weights_are_not_at_hand_references_alone_ask_for_nothing(
    own: Made, corpus: Lake, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(encoders, "mobilenet_file", lambda: None)
    say(corpus)
    build = resolve(corpus, looking(own.build, when="references", encoder="mobilenet_v2"))
    assert (build.has_references, build.has_embeddings) == (True, False)
    assert weights.INSTALL in build.lacks_encoder
    notes: list[str] = []
    assert not run_build(own.space, [build], workers=1, on_note=notes.append).failed
    assert any(weights.INSTALL in note for note in notes)


def test_an_encoder_that_cannot_be_had_fails_the_stage_and_says_why(
    made: Made, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
):
    def none(config: EmbeddingsConfig) -> None:
        raise weights.EncoderError("no weights for the encoder")

    monkeypatch.setattr(passing, "load_encoder", none)
    report = run_build(Workspace(tmp_path), [looking(made.build)], workers=1)
    assert {r.run.stage for r in report.done} == {"episodes", "frames", "demonstrations"}, "what was measured is kept"
    assert {f.stage for f in report.failed} == {"embeddings"}
    assert "no weights for the encoder" in report.failed[0].message


def test_sql_finds_what_is_alike(fresh: Made):
    ((likeness,),) = fresh.rows(
        "SELECT min(array_cosine_similarity(embedding, embedding)) FROM frame_embeddings WHERE task IS NOT NULL"
    )
    assert likeness == pytest.approx(1, abs=1e-3)
    assert not np.isnan(likeness)
