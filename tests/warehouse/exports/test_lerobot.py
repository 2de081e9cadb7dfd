"""LeRobot exports, opened by LeRobot itself: pictures, rows, subtasks in all forms, weights.

Also: what holds of every kind; statistics over episodes and chunks are those of the frames; labels that take a run
for complete though nobody says so are marked in exports, and a build asks to show a run.
"""

import json
import shutil
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import UserError
from core.paths import ROOT, Workspace
from eval.scored import EvalRun, add_predictions
from ingest.media.faces import FaceDetector
from ingest.source import list_episodes
from pipeline.config import source_build
from tests.kits.files import files_of
from tests.kits.lerobot_writer import edit_parquet, said, source_of
from tests.kits.made_corpus import Made, built
from tests.kits.tiny_lerobot import CAMERA, LENGTHS, NAMED, make_dataset, rows_path
from tests.kits.training_kit import KilledError
from warehouse.exports import EXPORT_KINDS
from warehouse.exports.export import MANIFEST, PARTIAL, ExportFolder
from warehouse.exports.lerobot_plan import rate_of
from warehouse.exports.lerobot_rows import (
    QUANTILES,
    Stats,
    combined,
    picture_statistics,
    statistics,
)
from warehouse.exports.options import Selection
from warehouse.exports.rabc import FILE
from warehouse.exports.selection import select
from warehouse.exports.verify_lerobot import verify
from warehouse.lake import Lake
from warehouse.lake.references import advice

LEROBOT = EXPORT_KINDS["lerobot"]
RABC = EXPORT_KINDS["rabc"]

FRONT = "observation.images.front"
ANY = Selection(allow=("unknown",))


@pytest.fixture(scope="module")
def tiny_export(made: Made, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("exports") / "tiny"
    LEROBOT.export(Lake(made.space, read_only=True), ANY, out)
    return out


def opened(root: Path) -> Any:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    return LeRobotDataset("local/test", root=root, video_backend="pyav")


def pictures(item: dict, camera: str) -> np.ndarray:
    return (item[camera].numpy().transpose(1, 2, 0) * 255).round().astype(np.uint8)


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_a_part_keeps_the_frame_numbers_of_its_source(made, tiny_export, tmp_path, version):
    source = made.source if version == "v2" else tiny_export
    made = built(source_build(source, "part", None, (1, 3)), Workspace(tmp_path / "part"))
    RABC.export(Lake(made.space, read_only=True), ANY, tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / FILE)
    starts = np.cumsum([0, *LENGTHS]).tolist()
    expected = [*range(starts[1], starts[2]), *range(starts[3], starts[4])]
    assert table["index"].to_pylist() == expected
    assert table["episode_index"].unique().to_pylist() == [1, 3]
    assert table["progress_sparse"].null_count == 0
    file_metadata = pq.read_metadata(tmp_path / "out" / FILE).metadata
    assert set(json.loads(file_metadata[b"proccorpus"])["suggested_kappa"]) == {
        "16",
        "32",
        "50",
        "100",
    }


def test_weights_go_by_the_index_of_rows_after_episodes_were_taken_out_by_hand(tmp_path):
    source = make_dataset(tmp_path / "source", (16, 18, 14))
    begins = (0, 100, 250)
    for episode, begin in enumerate(begins):
        path = rows_path(source, episode)
        table = pq.ParquetFile(path).read()
        pq.write_table(
            table.append_column("index", pa.array(begin + np.arange(table.num_rows))), path
        )
    space = built(
        source_build(source, "taken", None, None), Workspace(tmp_path / "workspace")
    ).space
    RABC.export(Lake(space, read_only=True), ANY, tmp_path / "out")
    index = pq.read_table(tmp_path / "out" / FILE)["index"].to_pylist()
    ranges = map(range, begins, np.add(begins, (16, 18, 14)).tolist())
    assert index == list(chain.from_iterable(ranges))


def test_an_export_is_ingested_with_the_same_texts_and_lengths(made_lake, tiny_export, tmp_path):
    space = Workspace(tmp_path / "again")
    built(source_build(tiny_export, "again", None, None), space)
    sql = "SELECT episode_index, task, num_frames, fps, cameras FROM episodes ORDER BY 1"
    segments = "SELECT episode_index, name, start_frame, end_frame, kind FROM active_segments ORDER BY 1, 3"
    second_lake = Lake(space, read_only=True)
    assert second_lake.rows(sql) == made_lake.rows(sql)
    # The same pictures and rows are labelled alike
    assert second_lake.rows(segments) == made_lake.rows(segments)
    assert second_lake.rows("SELECT content_hash FROM episodes ORDER BY ALL") == made_lake.rows(
        "SELECT content_hash FROM episodes ORDER BY ALL"
    )


@pytest.mark.slow
def test_segments_survive_a_merge_by_lerobot_and_a_deletion_that_loses_them_is_told(
    tiny_export, tmp_path
):
    from lerobot.datasets.dataset_tools import delete_episodes, merge_datasets

    # The tiny corpus has no idle segment. An older export has null in the place of its number, which makes floats
    for name, number in (("now", -1), ("earlier", None)):
        root = Path(shutil.copytree(tiny_export, tmp_path / name))
        meta = min((root / "meta/episodes").rglob("*.parquet"))
        column = pq.ParquetFile(meta).read()["proccorpus_segments"]
        cells = column.to_pylist()
        cells[0][-1] |= {"kind": "idle", "step": number, "completed": False}
        edit_parquet(meta, proccorpus_segments=pa.array(cells, column.type))
        out = tmp_path / f"{name} merged"
        parts = [opened(root), opened(root)]
        merge_datasets(parts, output_repo_id="local/merged", output_dir=out)
        as_exported, merged = [list_episodes(source_of(folder)) for folder in (root, out)]
        steps = [(record.steps_from, record.steps, record.plan) for record in as_exported.records]
        assert steps[0][1][-1].step is None
        assert [(record.steps_from, record.steps, record.plan) for record in merged.records] == [
            *steps,
            *steps,
        ]
        assert said(merged, reason="bad_steps") == said(merged, reason="steps_lost") == []
        table = pq.ParquetFile(min((out / "meta/episodes").rglob("*.parquet"))).read()
        whole = (
            table.schema.field("proccorpus_segments").type.value_type.field("step").type
            == pa.int64()
        )
        assert whole == (name == "now")

    delete_episodes(
        opened(tiny_export), [0], output_dir=tmp_path / "deleted", repo_id="local/deleted"
    )
    [finding] = [
        f
        for f in list_episodes(source_of(tmp_path / "deleted")).findings
        if f.reason == "steps_lost"
    ]
    assert finding.detail.startswith(
        f"{len(LENGTHS) - 1} episodes have the columns of an export of proccorpus"
    )


@pytest.mark.parametrize(
    ("rates", "stamped", "one"),
    [
        ({10.0}, None, 10.0),
        ({29.97}, None, 29.97),
        ({14.98, 15.01, 15.02}, None, 15.0),
        ({18.43, 18.57}, 20.0, 20.0),
        ({10.0, 20.0}, None, r"10 to 20"),
        ({18.43, 18.57}, 30.0, r"18\.43 to 18\.57 frames .*: at 30 they .*; give --fps 18"),
        ({18.43, 18.6}, None, r"18\.43 to 18\.6: stamp all rows at one, such as --fps 19, or"),
        ({15.0, 29.9, 30.1}, 30.0, r"add --where 'fps BETWEEN 29\.900 AND 30\.100'$"),
    ],
)
def test_the_rate_of_an_export(rates, stamped, one):
    """Rates that are near are one; rows of others may be stamped at a rate that is near to all."""
    if isinstance(one, float):
        assert rate_of(rates, stamped, may_stamp=True) == one
        return
    with pytest.raises(UserError, match=one):
        rate_of(rates, stamped, may_stamp=True)


@pytest.mark.parametrize("after", [0, 6])
def test_a_kill_midway_resumes_to_equal_bytes(made_lake, tiny_export, tmp_path, monkeypatch, after):
    real = ExportFolder.part
    parts_written = []

    def part(self: ExportFolder, name: str, write: Any, *arguments: Any) -> dict:
        def killed(*arguments: Any) -> Any:
            facts = write(*arguments)
            if len(parts_written) == after:
                raise KilledError(name)
            parts_written.append(name)
            return facts

        return real(self, name, killed, *arguments)

    monkeypatch.setattr(ExportFolder, "part", part)
    out = tmp_path / "out"
    with pytest.raises(KilledError):
        LEROBOT.export(made_lake, ANY, out)
    (out / PARTIAL / "cut.json").write_text('{"part": "cut in the mid')
    monkeypatch.setattr(ExportFolder, "part", real)
    assert not (out / "manifest.json").exists()
    LEROBOT.export(made_lake, ANY, out)
    assert files_of(out) == files_of(tiny_export)
    assert LEROBOT.export(made_lake, ANY, out).again


def test_selections(made_lake):
    def chosen(**conditions: Any) -> list[int]:
        return [
            e.episode_index
            for e in select(made_lake, Selection(allow=("unknown",), **conditions)).episodes
        ]

    assert chosen(where="num_frames > 20") == [0, 2, 4]
    assert chosen(
        where="SELECT dataset, episode_index FROM active_segments WHERE end_frame > 28"
    ) == [2]
    assert chosen(datasets=("tiny",), episodes=(1, 2)) == [1, 2]
    splits = dict(made_lake.rows("SELECT episode_index, split FROM splits"))
    assert chosen(splits=("train",)) == [e for e, s in sorted(splits.items()) if s == "train"]
    for bad, message in (
        ({"datasets": ("none",)}, "no dataset 'none'"),
        ({"splits": ("holdout",)}, "no split 'holdout'"),
        ({"where": "false"}, "nothing to export"),
        ({"where": "SELECT 1 AS one"}, "must give the columns"),
        ({"episodes": (1,)}, "goes with one dataset"),
    ):
        with pytest.raises(UserError, match=message):
            chosen(**bad)
    with pytest.raises(UserError, match="its licence is unknown"):
        select(made_lake, Selection())


def test_a_file_of_which_a_part_is_wanted_is_never_copied_whole(tmp_path):
    """The shipped sample's source is v3.0: several episodes in a file, two cameras."""
    built_corpus = built(
        source_build(ROOT / "samples/sim_long", "long", None, (0, 2, 5)),
        Workspace(tmp_path / "workspace"),
    )
    only = Selection(allow=("unknown",), datasets=("long",), episodes=(2,))
    LEROBOT.export(Lake(built_corpus.space, read_only=True), only, tmp_path / "out")
    (video,) = (tmp_path / "out/videos" / FRONT).rglob("*.mp4")
    with av.open(str(video)) as container:
        stated_frames = container.streams.video[0].frames
    assert (
        stated_frames
        == built_corpus.rows("SELECT num_frames FROM episodes WHERE episode_index = 2")[0][0]
    )


def test_faces_are_hidden_when_asked_and_told_in_card_and_manifest(
    made, tiny_export, tmp_path, monkeypatch
):
    """The source shows no person: a detector that sees a face at one place in every picture stands for one."""
    monkeypatch.setattr(
        FaceDetector, "__call__", lambda self, rgb: np.array([[8.0, 8.0, 24.0, 24.0]])
    )
    lake = Lake(made.space, read_only=True)
    out = tmp_path / "hidden"
    LEROBOT.export(lake, ANY, out, LEROBOT.options(blur="faces"))
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["blurred"] == {
        "pictures": sum(LENGTHS),
        "blurred": sum(LENGTHS),
        "most_faces": 1,
    }
    assert manifest["videos"] == {"encoded": len(LENGTHS)}
    assert (
        f"faces are hidden in {sum(LENGTHS)} of {sum(LENGTHS)} pictures"
        in (out / "README.md").read_text()
    )
    as_it_was = pictures(opened(tiny_export)[0], CAMERA)
    hidden = pictures(opened(out)[0], CAMERA)
    assert np.abs(as_it_was[8:24, 8:24].astype(int) - hidden[8:24, 8:24]).mean() > 5
    assert np.abs(as_it_was[40:].astype(int) - hidden[40:]).mean() < 5
    assert "blurred" not in json.loads((tiny_export / "manifest.json").read_text())


@pytest.mark.slow
def test_lerobots_own_reader_vouches_for_an_export_or_says_what_is_wrong(
    made, tiny_export, tmp_path, lerobot_in_thread
):
    lake = Lake(made.space, read_only=True)
    right = verify(lake, ANY, tiny_export, LEROBOT.options())
    assert right.problems == ()
    assert (right.episodes, right.frames, right.cameras) == (len(LENGTHS), sum(LENGTHS), 1)
    assert right.pictures >= 3 * len(LENGTHS)
    # Copied videos lose nothing
    assert right.most_off == 0.0
    assert f"opens {len(LENGTHS)} episodes, {sum(LENGTHS)} frames" in right.sentence()
    spoilt = tmp_path / "spoilt"
    shutil.copytree(tiny_export, spoilt)
    first, second = (spoilt / f"videos/{CAMERA}/chunk-000/file-00{k}.mp4" for k in (0, 2))
    shutil.copyfile(second, first)
    wrong = verify(lake, ANY, spoilt, LEROBOT.options())
    assert any("another picture at frame" in p and "of episode 0 by" in p for p in wrong.problems)
    assert wrong.sentence().startswith("NOT verified by LeRobot ")
    (spoilt / "meta/info.json").unlink()
    assert "it cannot open it" in verify(lake, ANY, spoilt, LEROBOT.options()).problems[0]
    with pytest.raises(UserError, match="no export that is whole"):
        verify(lake, ANY, tmp_path / "none", LEROBOT.options())


def test_episodes_that_sarm_cannot_take_are_named_and_left_out_where_asked(made, tmp_path):
    """The tiny corpus' other episodes have one unnamed step."""
    unnamed = sorted(set(range(len(LENGTHS))) - set(NAMED))
    lake = Lake(made.space, read_only=True)
    exported = LEROBOT.export(lake, ANY, tmp_path / "all")
    [note] = [note for note in exported.notes if "SARM" in note]
    assert note == (
        f"{len(unnamed)} labelled episodes have no SARM stages (steps without names; --only-complete leaves them out): "
        + ", ".join(f"tiny {index}" for index in unnamed)
    )
    complete = LEROBOT.export(lake, ANY, tmp_path / "out", LEROBOT.options(only_complete=True))
    assert (complete.episodes, complete.left_out) == (
        len(NAMED),
        (f"{len(unnamed)} episodes without SARM stages",),
    )
    assert not any("SARM" in note for note in complete.notes)
    dataset = opened(tmp_path / "out")
    assert [
        dataset.meta.episodes[k]["proccorpus_episode_index"] for k in range(len(NAMED))
    ] == list(NAMED)
    assert all(dataset.meta.episodes[k]["dense_subtask_names"] for k in range(len(NAMED)))


def test_an_answer_at_the_end_that_cannot_be_read_does_not_switch_weights_off(corpus, tmp_path):
    """LeRobot takes a gain at most to the last frame. Answers in the middle, and many at the end, stay unknown."""
    content_rows = corpus.dicts(
        "SELECT episode_index, num_frames, content_hash FROM episode_content ORDER BY 1"
    )
    predictions = []
    for e in content_rows:
        last = e["num_frames"] - 1
        # Of episode 0 the last answer is unread, of episode 1 those of the second half, of episode 2 one in the middle
        unread = {0: {last}, 1: set(range(6, last + 1)), 2: {9}}.get(e["episode_index"], set())
        for frame in sorted({*range(0, last, 3), last}):
            value = None if frame in unread else frame / last
            row = {"dataset": "tiny", **e, "frame_index": frame, "prediction": value}
            del row["num_frames"]
            predictions.append(row)
    add_predictions(
        corpus,
        "rewards",
        EvalRun("run1", "m", "rewards", "{}", "rewards-1", predictions=predictions),
    )
    options = RABC.options(rewards="run1", model="m")
    exported = RABC.export(corpus, ANY, tmp_path / "out", options)
    progress = {
        e: group["progress_dense"].to_numpy()
        for e, group in pq.read_table(tmp_path / "out" / FILE).to_pandas().groupby("episode_index")
    }
    first_progress = progress[0]
    assert np.isfinite(first_progress).all()
    assert first_progress[-1] == first_progress[21] == np.float32(21 / 23)
    assert np.isnan(progress[1][-1])
    assert np.isnan(progress[2][9])
    assert np.isfinite(progress[2][-1])
    assert (
        "at the last frame of 1 episodes cannot be read" in (tmp_path / "out/README.md").read_text()
    )
    assert "episodes 0" in str(exported)


def stats_of(values: np.ndarray) -> Stats:
    stats = statistics(values)
    assert stats is not None
    return stats


def test_quantiles_over_episodes_in_different_places_are_those_of_the_frames():
    draw = np.random.default_rng(0)
    places = [-1, -1, -1, -1, -1, 1]
    episodes = [place + draw.uniform(-0.1, 0.1, (100, 2)) for place in places]
    whole = combined(list(map(stats_of, episodes)))
    frames = np.quantile(np.concatenate(episodes), list(QUANTILES.values()), axis=0)
    np.testing.assert_allclose([whole[name] for name in QUANTILES], frames, atol=0.01)
    assert whole["count"] == [600]


def test_quantiles_over_chunks_of_episodes_are_within_a_twentieth_of_the_range():
    draw = np.random.default_rng(0)
    episodes = [draw.normal(size=(200, 2)).cumsum(axis=0) for _ in range(60)]
    stats = list(map(stats_of, episodes))
    # A chunk joins its episodes, and the export its chunks
    whole = combined([combined(stats[start : start + 20]) for start in (0, 20, 40)])
    frames = np.concatenate(episodes)
    frame_quantiles = np.quantile(frames, list(QUANTILES.values()), axis=0)
    differences = np.abs([whole[name] for name in QUANTILES] - frame_quantiles)
    assert (differences < 0.05 * np.ptp(frames, axis=0)).all()


def test_quantiles_of_one_episode_and_of_a_still_joint_stay():
    episode = stats_of(np.random.default_rng(0).normal(size=(50, 3)))
    assert combined([episode]) == episode
    still = combined([stats_of(np.full((10, 1), 3.0)), stats_of(np.full((30, 1), 3.0))])
    assert [still[name] for name in QUANTILES] == [[3.0]] * len(QUANTILES)


def test_a_histogram_says_of_pictures_what_all_their_pixels_say():
    rng = np.random.default_rng(2)
    pictures = [rng.integers(0, top, (17, 23, 3), np.uint8) for top in (256, 3, 1)]
    stats = picture_statistics(pictures)
    expected = stats_of(np.concatenate([picture.reshape(-1, 3) for picture in pictures]) / 255)
    assert stats.pop("count") == [3]
    assert all(np.allclose(value, expected[name], atol=1e-12) for name, value in stats.items())


def test_weights_and_metadata_say_whose_outcome_is_assumed(made_lake, tmp_path):
    chosen = Selection(allow=("unknown",))
    exported = EXPORT_KINDS["rabc"].export(
        made_lake, chosen, tmp_path / "rabc", EXPORT_KINDS["rabc"].options()
    )
    assert (
        "tiny: 5 of 5 labels take for complete what nobody says the outcome of (outcome_assumed)"
        in exported.notes
    )
    weights = pq.read_table(tmp_path / "rabc/sarm_progress.parquet")
    assert set(weights["outcome_assumed"].to_pylist()) == {True}
    EXPORT_KINDS["lerobot"].export(made_lake, chosen, tmp_path / "lerobot")
    episodes = pq.read_table(sorted((tmp_path / "lerobot/meta/episodes").rglob("*.parquet")))
    assert episodes["outcome_assumed"].to_pylist() == [True] * 5
    assert made_lake.rows("SELECT count(*) FILTER (outcome_assumed) FROM active_outcomes") == [(5,)]


def test_tasks_that_nobody_has_shown_are_counted(made_lake):
    texts = [text for dataset, text in advice(made_lake) if dataset == "tiny"]
    assert texts[0].startswith("show one run of each of its 2 tasks: about two minutes")


OTHER = Selection(allow=("unknown",), min_confidence=0.01)


# Each base has one: a dataset's files, rows beside videos, samples, labels in a file; recordings, which take longest
OFTEN = ("lerobot", "weights", "llamafactory", "annotations-json")
MARKS = dict.fromkeys(OFTEN, ()) | {"rerun": pytest.mark.slow}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=MARKS.get(n, pytest.mark.long)) for n in EXPORT_KINDS],
)
def test_an_export_is_kept_replaced_or_refused(made_lake, tmp_path, name):
    kind = EXPORT_KINDS[name]
    (tmp_path / "out").mkdir()
    out = tmp_path / "out"
    if kind.is_file:
        out /= "export"
    assert not kind.export(made_lake, ANY, out).again
    written = files_of(tmp_path / "out")
    assert kind.export(made_lake, ANY, out).again
    with pytest.raises(UserError, match="holds another export"):
        kind.export(made_lake, OTHER, out)
    assert files_of(tmp_path / "out") == written
    assert not kind.export(made_lake, OTHER, out, overwrite=True).again
    assert files_of(tmp_path / "out") != written
    assert not kind.export(made_lake, ANY, out, overwrite=True).again
    # Rerun writes times and ids of its own
    assert kind.name == "rerun" or files_of(tmp_path / "out") == written
    if not kind.is_file:
        files = [path for path in out.rglob("*.*") if path.name != MANIFEST]
        min(files).unlink()
        with pytest.raises(UserError, match="is missing or has changed"):
            kind.export(made_lake, ANY, out)


@pytest.mark.parametrize("name", EXPORT_KINDS)
def test_what_is_no_export_is_never_replaced(made_lake, tmp_path, name):
    kind = EXPORT_KINDS[name]
    person = tmp_path / "mine.json"
    person.write_text('{"version": 2, "episodes": {}}')
    table = tmp_path / "mine.parquet"
    pq.write_table(pa.table({"a": [1]}), table)
    written = files_of(tmp_path)
    places = {tmp_path: "is not empty", person: "is a file", table: "is a file"}
    if kind.is_file:
        ours = "is no export of ours"
        places = {tmp_path: "is a folder", person: ours, table: ours}
    for out, reason in places.items():
        for overwrite in (False, True):
            with pytest.raises(UserError, match=reason):
                kind.export(made_lake, ANY, out, overwrite=overwrite)
    assert files_of(tmp_path) == written


@pytest.mark.parametrize("name", EXPORT_KINDS)
@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        ({"label_run": "gone"}, "no episode selected has a label of the run 'gone'"),
        ({"cameras": ("gone",)}, "tiny episode 0 has no camera gone; it has "),
    ],
)
def test_a_label_run_and_a_camera_that_are_not_there_are_refused(
    made_lake, tmp_path, name, choice, reason
):
    with pytest.raises(UserError, match=reason):
        EXPORT_KINDS[name].export(made_lake, ANY.model_copy(update=choice), tmp_path / "out")
    assert not (tmp_path / "out").exists()
