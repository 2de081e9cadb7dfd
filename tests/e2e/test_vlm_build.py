"""Builds annotated by a model: nothing is asked twice, nothing is labelled blind."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from core.domain.label import Segment, check_tiling
from tests.kits.cli_kit import (
    FAILED,
    Result,
    column,
    command,
    digest_of,
    ok,
    rows,
    write_config,
)
from tests.kits.fault_kit import ModelServer, serving_model
from tests.kits.lerobot_writer import write_json_lines as write_lines
from tests.kits.lerobot_writer import write_video
from tests.kits.tiny_lerobot import LENGTHS, TASKS, make_dataset, video_path, write_rows
from tests.kits.vlm_standin import Fault, StandIn, serving

pytestmark = pytest.mark.slow

SETTINGS = """annotator = "vlm"
frames = {{keyframe_interval_s = 0.4}}
vlm = {{model = "stand-in", endpoints = ["{url}"], reason_interval_s = 1.0, max_attempts = 3, refine = true{more}}}"""


@pytest.fixture
def server(tmp_path) -> Iterator[ModelServer]:
    with serving_model(tmp_path) as model_server:
        yield model_server


def configured(folder: Path, source: Path, url: str, extra_settings: str = "") -> Path:
    return write_config(folder, source, SETTINGS.format(url=url, more=extra_settings))


def build(config: Path, workspace: Path, *options: object) -> Result:
    return command("build", "--config", config, *options, cwd=config.parent, workspace=workspace)


@dataclass(frozen=True)
class Annotated:
    """A whole build by one worker, its server, which still runs, and what it came to."""

    server: ModelServer
    config: Path
    workspace: Path
    sent: list[str]
    digest: dict[str, str]
    output: str


@pytest.fixture(scope="module")
def annotated(source: Path, tmp_path_factory) -> Iterator[Annotated]:
    """Not for changing."""
    folder = tmp_path_factory.mktemp("annotated")
    workspace = folder / "workspace"
    with serving_model(folder) as server:
        config = configured(folder / "project", source, server.url)
        built = ok(build(config, workspace, "--workers", 1))
        sent = server.events("received")
        yield Annotated(server, config, workspace, sent, digest_of(workspace), built.out)


@pytest.fixture
def annotate(tmp_path, source: Path) -> Callable[..., Result]:
    """`proccorpus build` of the tiny dataset by a server's model."""

    def run(
        server: ModelServer | StandIn, workspace: Path, *options: object, root: Path = source
    ) -> Result:
        return build(configured(tmp_path / "project", root, server.url), workspace, *options)

    return run


def test_all_five_stages_fill_the_tables_and_nothing_is_asked_twice(annotated, tmp_path):
    server = annotated.server
    workspace = annotated.workspace
    sent = annotated.sent
    calls = dict(rows(workspace, "SELECT stage, count(*) FROM vlm_calls GROUP BY 1"))
    assert set(calls) == {"plan", "segment", "refine", "verify", "reason"}
    assert calls["plan"] == len(LENGTHS)
    assert "What the model was asked about tiny:" in annotated.output
    assert len(sent) == sum(calls.values()) == len(set(sent))
    labelled: dict[int, list[Segment]] = {}
    for episode, planned, *fields in rows(
        workspace,
        "SELECT episode_index, num_planned, name, start_frame, end_frame, kind, completed, step FROM segments "
        "ORDER BY episode_index, segment_index",
    ):
        labelled.setdefault(episode, []).append(Segment(*fields))
        check_tiling(labelled[episode], labelled[episode][-1].end_frame, planned)
    assert {e: s[-1].end_frame for e, s in labelled.items()} == dict(enumerate(LENGTHS))
    (run,) = rows(workspace, "SELECT annotator, model, length(prompt_version) FROM label_runs")
    assert run == ("vlm", "stand-in", 16)
    for table in ("reasoning", "episode_labels"):
        assert {*column(workspace, f"SELECT episode_index FROM {table}")} == {*EVERY}
    # the frames that were looked at closely are kept, and every picture that was sent can be found again
    boundary = rows(workspace, "SELECT sha256 FROM keyframes WHERE purpose = 'boundary'")
    assert boundary
    assert all((workspace / "keyframes" / s[:2] / f"{s}.jpg").exists() for (s,) in boundary)

    assert "nothing was done again" in ok(build(annotated.config, workspace, "--workers", 1)).out
    assert server.events("received") == sent
    other_workspace = (
        tmp_path / "other"
    )  # a workspace of its own that has the replies: the same labels without a server
    shutil.copytree(workspace / "responses", other_workspace / "responses")
    server.kill()
    ok(build(annotated.config, other_workspace, "--workers", 1))
    assert digest_of(other_workspace) == digest_of(workspace) == annotated.digest
    assert rows(other_workspace, "SELECT count(*) FROM vlm_calls") == [(0,)]


def test_a_server_that_puts_off_for_an_hour_is_well_afterwards(
    annotated, annotate, server, tmp_path
):
    workspace = tmp_path / "workspace"
    busy = StandIn(faults=[Fault("429", first=1, after=3)], retry_after_s=3600)
    with serving(busy):
        built = annotate(busy, workspace, "--workers", 1)
    assert "the next build asks about them again" in built.out + built.err
    assert labelled(workspace) != EVERY
    ok(annotate(server, workspace, "--workers", 1))
    assert not {*busy.answered} & {*server.events("received")}
    assert digest_of(workspace) == annotated.digest


RUNS = 20  # of one task
KINDS = 3  # of runs; those of a kind have the same pictures and rows


@pytest.fixture(scope="module")
def one_task(tmp_path_factory) -> Path:
    root = make_dataset(
        tmp_path_factory.mktemp("one_task") / "source", [40 + k % KINDS for k in range(RUNS)]
    )
    episodes = [
        json.loads(line) for line in (root / "meta/episodes.jsonl").read_text().splitlines()
    ]
    write_lines(root / "meta/episodes.jsonl", [e | {"tasks": [TASKS[0]]} for e in episodes])
    write_lines(root / "meta/tasks.jsonl", [{"task_index": k, "task": TASKS[0]} for k in range(2)])
    for k in range(KINDS, RUNS):
        shutil.copy(video_path(root, k % KINDS), video_path(root, k))
        write_rows(root, k, 40 + k % KINDS, source_episode=k % KINDS)
    return root


def test_of_a_task_a_few_runs_are_asked_about_and_the_others_follow(one_task, tmp_path):
    workspace = tmp_path / "workspace"
    with serving_model(tmp_path, "--fault", "even") as server:
        config = configured(
            tmp_path / "project", one_task, server.url, ", runs_per_task = 4, max_calls = 9"
        )
        config.with_name("registry").joinpath("tiny.yaml").write_text(
            f"name: tiny\nsource: {one_task}\n"
        )
        bill_words = ("--dry-run", "--format", "json")
        [bill] = ok(build(config, workspace, *bill_words)).json["model"]
        assert (bill["episodes"], bill["of_each_run"]["episodes"]) == (4, RUNS)
        assert (bill["measured"], bill["stages"][-1]["calls"]) == (0, 0)
        # Ended by its budget on the way, it goes on where it was
        assert build(config, workspace, "--workers", 1).code == FAILED
        config.write_text(config.read_text().replace(", max_calls = 9", ""))
        built = ok(build(config, workspace, "--workers", 1))
        sent = server.events("received")
    assert len(sent) == len(set(sent))
    [bill] = ok(build(config, workspace, *bill_words, "--again")).json["model"]
    assert (bill["measured"], bill["stages"][-1]["calls"]) == (4, len(sent))
    assert len(sent) <= 4 / RUNS * bill["of_each_run"]["stages"][-1]["calls"]
    assert labelled(workspace) == list(range(RUNS))
    assert (
        f"like those of vlm: {RUNS - 4}"
        in ok(command("status", cwd=tmp_path, workspace=workspace)).out
    ), built.out

    # One set of names; each label leads to the runs that it follows, and these to the answers. Two runs of a kind have
    # the same pictures, so that what is asked about one is not sent again for the other, whichever comes first
    plans = rows(workspace, "SELECT DISTINCT plan FROM episode_labels")
    assert plans == [([f"Move thing {k}" for k in range(3)],)]
    unknown = (
        "SELECT l.episode_index FROM episode_labels l LEFT JOIN alignments a USING (episode_index) WHERE NOT EXISTS "
        "(FROM vlm_calls c WHERE c.status = 'ok' AND "
        f"ifnull(a.reference_episode, l.episode_index) % {KINDS} = c.episode_index % {KINDS})"
    )
    assert rows(workspace, unknown) == []
    asked_kinds = f"SELECT DISTINCT episode_index % {KINDS} FROM vlm_calls ORDER BY 1"
    assert rows(workspace, asked_kinds) == rows(
        workspace, asked_kinds.replace("vlm_calls", "reasoning")
    )
    error = "SELECT avg(abs(progress - (frame_index + 1) / n)) FROM active_progress JOIN (SELECT episode_index, "
    [(max_error,)] = rows(
        workspace, error + "max(num_frames) AS n FROM episodes GROUP BY 1) USING (episode_index)"
    )
    assert max_error < 0.1


def labelled(workspace: Path) -> list[int]:
    return column(workspace, "SELECT DISTINCT episode_index FROM active_progress ORDER BY 1")


EVERY = list(range(len(LENGTHS)))


def test_no_pictures_no_call(server, annotate, own, tmp_path):
    """Undecodable and black videos are quarantined; nothing is asked about them."""
    video_path(own.source, 0).write_bytes(b"no video")
    write_video(video_path(own.source, 1), [np.zeros((48, 64, 3), np.uint8)] * LENGTHS[1])
    options = ("--workers", 1, "--episodes", "0-2")
    ok(annotate(server, tmp_path / "workspace", *options, root=own.source))
    questions = "SELECT DISTINCT episode_index FROM vlm_calls ORDER BY 1"
    assert column(tmp_path / "workspace", questions) == [2]
    assert dict(rows(tmp_path / "workspace", "SELECT episode_index, reason FROM quarantine")) == {
        0: "undecodable_video",
        1: "camera_black",
    }
