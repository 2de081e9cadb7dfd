"""Embeddings in a build: of the one decoding or of one of their own, when they are made, and what makes them stale."""

from typing import Any

import pyarrow as pa
import pytest

from annotate.config import EmbeddingsConfig
from annotate.embeddings import INSTALL, missing_download
from cli.status import status_rows
from core.paths import Workspace
from pipeline.build import BuildListener, run_build
from pipeline.config import DatasetBuild, resolve
from pipeline.stages import stage_named
from tests.kits.lake_kit import say
from tests.kits.made_corpus import Made, built, stage_output, with_stages
from warehouse.lake import Lake

pytestmark = pytest.mark.slow


class Notes(BuildListener):
    def __init__(self, notes: list[str]) -> None:
        self.notes = notes

    def note(self, text: str) -> None:
        self.notes.append(text)


def looking(build: DatasetBuild, **changes: Any) -> DatasetBuild:
    """The build with embeddings by grey pictures, unless it is told otherwise."""
    config = EmbeddingsConfig(**{"when": "always", "encoder": "grey", "grid": 2} | changes)
    return with_stages(build, embeddings=config)


@pytest.fixture(scope="module")
def fresh(made: Made, tmp_path_factory) -> Made:
    """Built from nothing by one worker, with embeddings."""
    return built(looking(made.build), Workspace(tmp_path_factory.mktemp("embedded")))


def test_a_decoding_of_their_own_gives_the_same(fresh):
    lake = Lake(fresh.space, read_only=True)
    [(num_pictures,)] = lake.rows("SELECT count(*) FROM embeddings")
    assert status_rows(lake)[0]["embeddings"] == f"{num_pictures} pictures by grey@64"
    outputs = [
        stage_output(stage_named("embeddings"), lake, fresh.build, chunk) for chunk in (0, 1, 2)
    ]
    assert all(output.findings == [] for output in outputs)
    tables = pa.concat_tables([output.tables["embeddings"] for output in outputs])
    assert sum(int(output.numbers["decoded_frames"]) for output in outputs) == tables.num_rows, (
        "no frame but those"
    )
    stored = lake.arrow("SELECT * FROM embeddings ORDER BY episode_index, camera, frame_index")
    assert tables.cast(stored.schema).equals(stored)


def test_mobilenet_gives_the_same_by_any_number_of_threads(fresh):
    if missing := missing_download(EmbeddingsConfig()):
        pytest.skip(missing)
    lake = Lake(fresh.space, read_only=True)
    build = looking(fresh.build, encoder="mobilenet_v2", device="cpu")
    single_thread, four_threads = (
        stage_output(stage_named("embeddings"), lake, build, 0, threads).tables["embeddings"]
        for threads in (1, 2)
    )
    assert single_thread.num_rows > 0
    assert single_thread.equals(four_threads)


def test_a_video_that_is_gone_is_a_finding(fresh, tmp_path):
    copied = fresh.copy(tmp_path)
    lake = Lake(copied.space)
    build = looking(copied.build)
    ((uri,),) = lake.rows(
        "SELECT DISTINCT videos[1].uri FROM episode_facts WHERE episode_index = 0"
    )
    right = stage_output(stage_named("embeddings"), lake, build, 0)
    (copied.source / uri).write_bytes(b"")
    output = stage_output(stage_named("embeddings"), lake, build, 0)
    lost_episodes = {f.episode_index for f in output.findings or ()}
    assert 0 in lost_episodes
    assert {(f.reason, f.severity) for f in output.findings or ()} == {
        ("undecodable_video", "warning")
    }
    episodes_left = [
        e for e in right.tables["embeddings"]["episode_index"].to_pylist() if e not in lost_episodes
    ]
    assert output.tables["embeddings"]["episode_index"].to_pylist() == episodes_left


def test_where_the_weights_are_not_at_hand_references_alone_ask_for_nothing(
    own, corpus, monkeypatch
):
    monkeypatch.setattr("annotate.embeddings.local_weights", lambda _: None)
    say(corpus)
    build = resolve(corpus, looking(own.build, when="references", encoder="mobilenet_v2"))
    assert (build.has_references, build.has_embeddings) == (True, False)
    assert INSTALL in build.lacks_encoder
    notes: list[str] = []
    assert not run_build(own.space, [build], 1, Notes(notes)).failed
    assert any(INSTALL in note for note in notes)
