"""Exports of samples, as those who read them do: LLaMA-Factory's documented layout, EasyR1 and verl, `datasets`."""

import io
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from core.errors import UserError
from core.paths import Workspace
from tests.kits.files import hashes_of
from tests.kits.made_corpus import Made
from warehouse.exports import EXPORT_KINDS
from warehouse.exports import datasets as hugging
from warehouse.exports.folder import MANIFEST, PARTIAL, Exported, ExportFolder
from warehouse.exports.hub import PICTURE, with_features, write_rows
from warehouse.exports.options import Selection
from warehouse.exports.samples import SampleExport, shown_path
from warehouse.lake import Lake
from warehouse.releases import Release, create_release
from warehouse.releases.takedown import take_down
from warehouse.shards import Sample, ShardError, read_samples
from warehouse.shards.ground_truth import ground_truth

ANY = ("unknown",)


def _exporter(kind: str) -> Callable[..., Exported]:
    def export(lake: Lake, selection: Selection, out: Path, options: Any = (), *, overwrite: bool = False) -> Exported:
        chosen = EXPORT_KINDS[kind]
        return chosen.export(lake, selection, out, chosen.read_options(options), overwrite=overwrite)

    return export


KINDS = {kind: _exporter(kind) for kind in ("llamafactory", "easyr1", "datasets")}


@dataclass(frozen=True)
class Frozen:
    lake: Lake
    release: Release
    samples: dict[str, Sample]  # what the shards hold, by id
    folder: Path  # with an export of each kind, of all of the release

    @property
    def selection(self) -> Selection:
        return Selection(release=self.release.name, allow=ANY)


def loaded(*of: str, **options: Any) -> Any:
    """What Hugging Face's `datasets` opens; its types are of every kind of answer at once."""
    import datasets

    return datasets.load_dataset(*of, **options)


@pytest.fixture(scope="module")
def frozen(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Frozen]:
    folder = tmp_path_factory.mktemp("exports")
    lake = Lake(made.copy(folder).space)
    release = create_release(lake, "r1", allow=ANY)
    tars = [s.path(lake.workspace) for s in release.shard_list]
    found = Frozen(lake, release, {s.row["sample_id"]: s for s in read_samples(tars)}, folder)
    for kind, export in KINDS.items():
        export(lake, found.selection, folder / kind)
    yield found
    lake.con.close()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for `datasets`, which is kept from the network."""
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


def manifest(root: Path) -> dict:
    return json.loads((root / MANIFEST).read_text())


def think(samples: dict[str, Sample]) -> dict[str, Sample]:
    return {i: s for i, s in samples.items() if s.row["form"] == "think"}


# LLaMA-Factory


def test_llamafactory_has_its_documented_layout(frozen: Frozen):
    root = frozen.folder / "llamafactory"
    info = json.loads((root / "dataset_info.json").read_text())
    assert set(info) == {f"proccorpus_{s.split}" for s in frozen.release.shard_list}
    found, pictures = [], set()
    for entry in info.values():
        assert entry["formatting"] == "sharegpt"
        assert set(entry["columns"]) <= {"messages", "images", "videos", "system", "tools"}
        tags, columns = entry["tags"], entry["columns"]
        files = sorted((root / entry["file_name"]).iterdir())
        assert {f.suffix for f in files} == {".json"}, "every file of the folder is read, as one type"
        for row in [row for f in files for row in json.loads(f.read_text())]:
            asked, answered = row[columns["messages"]]
            assert [m[tags["role_tag"]] for m in (asked, answered)] == [tags["user_tag"], tags["assistant_tag"]]
            text = asked[tags["content_tag"]] + answered[tags["content_tag"]]
            assert text.count("<image>") == len(row[columns["images"]]) > 0
            data = [(root / p).read_bytes() for p in row[columns["images"]]]
            found.append((asked["content"], answered["content"], tuple(data)))
            pictures.update(row["images"])
    wanted = [(s.row["question"], s.row["answer"], s.pictures) for s in frozen.samples.values()]
    assert sorted(found) == sorted(wanted)
    there = {p.relative_to(root).as_posix() for p in (root / "images").rglob("*.jpg")}
    assert there == pictures, "each picture once, and no other"
    assert len(there) < sum(len(s.pictures) for s in frozen.samples.values())


def test_its_files_open_as_its_loader_opens_them(frozen: Frozen, hub: Path):

    root = frozen.folder / "llamafactory"
    files = [str(p) for p in (root / "train").iterdir()]
    rows = loaded("json", data_files=files, split="train", cache_dir=str(hub))
    assert rows.column_names == ["messages", "images"]
    assert len(rows) == sum(s.row["split"] == "train" for s in frozen.samples.values())


# EasyR1 and verl


def test_easyr1_opens_as_both_trainers_open_it(frozen: Frozen, hub: Path):
    import datasets

    root, wanted = frozen.folder / "easyr1", think(frozen.samples)
    seen = {}
    for split in {s.row["split"] for s in wanted.values()}:
        folder = loaded("parquet", data_dir=str(root / split), split="train", cache_dir=str(hub))
        files = loaded("parquet", data_files=str(root / split / "*.parquet"), cache_dir=str(hub))["train"]
        assert folder.features == files.features
        assert folder.features["images"].feature == datasets.Image()
        assert [e["index"] for e in folder["extra_info"]] == list(range(len(folder)))
        for row in folder.cast_column("images", datasets.List(datasets.Image(decode=False))):
            sample = wanted[row["extra_info"]["sample_id"]]
            assert tuple(i["bytes"] for i in row["images"]) == sample.pictures
            assert row["problem"] == row["prompt"][0]["content"] == sample.row["question"]
            assert row["answer"] == row["reward_model"]["ground_truth"]
            assert (row["data_source"], row["extra_info"]["split"]) == (sample.row["family"], split)
            seen[sample.row["sample_id"]] = json.loads(row["answer"])
        assert folder[0]["images"][0].size == (64, 48)
    assert set(seen) == set(wanted)
    for i, truth in seen.items():
        row = wanted[i].row
        assert all(isinstance(v, str) for k, v in truth.items() if k != "demo_count")
        if row["reason"]:
            assert (truth["ref"], truth["score_percent"]) == ("n/a", "n/a")
        else:
            assert int(truth["ref"]) == row["reference"] <= truth["demo_count"]
            assert float(truth["score_percent"]) == pytest.approx(100 * row["progress"], abs=0.006)
            assert float(truth["score_fraction"]) == pytest.approx(row["progress"], abs=0.0001)
        assert f"<ref>{truth['ref']}</ref>" in truth["target_response"]
        assert f"<score>{truth['score_text']}</score>" in truth["target_response"]
        if row["family"] in ("progresslm_visual", "progresslm_cross_view"):
            assert truth["demo_count"] == len(row["pictures"]) - 1


def test_a_ground_truth_that_contradicts_itself_is_an_error(frozen: Frozen):
    sample = next(s for s in think(frozen.samples).values() if s.row["reference"])
    assert ground_truth(sample)["ref"] == str(sample.row["reference"])
    for change in ({"reference": 99}, {"reference": None}, {"question": "What now?"}):
        with pytest.raises(ShardError, match="do not go together"):
            ground_truth(Sample({**sample.row, **change}, sample.pictures))


def test_easyr1_takes_only_what_can_be_rewarded(frozen: Frozen, tmp_path: Path):
    with pytest.raises(UserError, match="procvqa_a has no reference and score"):
        KINDS["easyr1"](frozen.lake, frozen.selection, tmp_path / "out", {"families": ["procvqa_a"]})


# Hugging Face datasets


def test_load_dataset_opens_the_folder(frozen: Frozen, hub: Path):
    import datasets

    root = str(frozen.folder / "datasets")
    splits = loaded(root, cache_dir=str(hub))
    assert set(splits) == {s.split for s in frozen.release.shard_list}
    assert splits["train"][0]["images"][0].size == (64, 48)
    seen = set()
    for split, rows in splits.items():
        for row in rows.cast_column("images", datasets.List(datasets.Image(decode=False))):
            sample = frozen.samples[row["sample_id"]]
            assert tuple(i["bytes"] for i in row["images"]) == sample.pictures
            assert [i["path"] for i in row["images"]] == [shown_path(sample.row, p) for p in sample.row["pictures"]]
            assert sample.row["split"] == split
            assert {c: row[c] for c in hugging.COLUMNS} == {c: sample.row[c] for c in hugging.COLUMNS}
            seen.add(row["sample_id"])
    assert seen == set(frozen.samples)
    progress = loaded(root, "progress", cache_dir=str(hub))["all_splits"]
    assert len(progress) == frozen.lake.rows("SELECT count(*) FROM active_progress")[0][0]
    segments = loaded(root, "segments", cache_dir=str(hub))["all_splits"]
    assert len(segments) == frozen.lake.rows("SELECT count(*) FROM active_segments")[0][0]
    assert len(loaded(root, "episodes", cache_dir=str(hub))["all_splits"]) == 5


def test_a_row_group_holds_a_picture_once(tmp_path: Path):
    picture = random.Random(0).randbytes(100_000)
    schema = with_features(pa.schema([("n", pa.int64()), ("images", pa.list_(PICTURE))]))
    row = {"n": 1, "images": [{"bytes": picture, "path": "a.jpg"}] * 3}
    folder = ExportFolder(tmp_path / "out", "test", "x").open()
    write_rows(folder, "one", schema, [[row] * 50])
    assert (tmp_path / "out/one-000.parquet").stat().st_size < 2 * len(picture), "150 times the picture"
    write_rows(folder, "many", schema, [[row]] * 6, file_bytes=1000, group_bytes=1000)
    many = sorted((tmp_path / "out").glob("many-*.parquet"))
    assert [path.name for path in many] == [f"many-{k:03d}.parquet" for k in range(6)]
    assert sum(pq.read_metadata(path).num_rows for path in many) == 6


# What goes for all


@pytest.mark.parametrize("kind", KINDS)
def test_the_manifest_says_what_is_there(frozen: Frozen, kind: str):
    root = frozen.folder / kind
    told = manifest(root)
    assert {f["path"]: f["sha256"] for f in told["files"]} == {
        k: v for k, v in hashes_of(root).items() if k != MANIFEST
    }
    assert (told["release"], told["content"]) == ("r1", frozen.release.config_hash)
    wanted = think(frozen.samples) if kind == "easyr1" else frozen.samples
    assert told["samples"] == len(wanted) == sum(c["samples"] for c in told["counts"])
    assert [r["label_run"] for r in told["label_runs"]] == sorted({s.row["label_run"] for s in wanted.values()})
    assert told["datasets"][0] | {"frames": 0} == {
        **{"dataset": "tiny", "license": None, "episodes": 5, "frames": 0, "labelled_episodes": 5},
        **{"min_confidence": 0.0, "min_name_confidence": 0.5},
        **{"below_min_confidence": 0, "below_min_name_confidence": 2, "unnamed_labels": 0},
    }
    assert str(frozen.folder) not in (root / MANIFEST).read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_broken_off_it_goes_on_to_equal_bytes(
    frozen: Frozen, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    read, episodes = SampleExport.read, []

    def broken(self: SampleExport, part):
        for episode in read(self, part):
            if len(episodes) == 3:
                raise KeyboardInterrupt
            episodes.append(episode)
            yield episode

    out = tmp_path / "out"
    with monkeypatch.context() as m:
        m.setattr(SampleExport, "read", broken)
        with pytest.raises(KeyboardInterrupt):
            KINDS[kind](frozen.lake, frozen.selection, out)
    assert (out / PARTIAL).exists()
    assert not (out / MANIFEST).exists()
    done = KINDS[kind](frozen.lake, frozen.selection, out)
    assert not done.again
    assert hashes_of(out) == hashes_of(frozen.folder / kind)
    assert KINDS[kind](frozen.lake, frozen.selection, out).again


def test_families_forms_and_episodes_narrow(frozen: Frozen, tmp_path: Path):
    families = ("progresslm_text", "procvqa_a")
    chosen = Selection(release="r1", datasets=("tiny",), episodes=(0, 2), allow=ANY)
    KINDS["llamafactory"](frozen.lake, chosen, tmp_path / "out", {"families": families, "forms": ("no_think",)})
    wanted = {
        (s.row["question"], s.row["answer"])
        for s in frozen.samples.values()
        if s.row["family"] in families and s.row["form"] in (None, "", "no_think")
        if s.row["episode_index"] in (0, 2)
    }
    rows = [r for p in (tmp_path / "out").glob("*/part-*.json") for r in json.loads(p.read_text())]
    assert {tuple(m["content"] for m in r["messages"]) for r in rows} == wanted
    assert wanted


def test_a_profile_is_what_draw_draws(frozen: Frozen, tmp_path: Path):
    from warehouse.shards.profiles import draw

    done = KINDS["easyr1"](frozen.lake, frozen.selection, tmp_path / "out", {"profile": "progresslm_rl"})
    drawn = draw(frozen.lake.workspace, frozen.release, "progresslm_rl").samples["sample_id"].to_pylist()
    rows = pq.read_table(tmp_path / "out/train", columns=["extra_info"])["extra_info"].to_pylist()
    assert sorted(r["sample_id"] for r in rows) == sorted(drawn)
    assert done.notes[-1] == f"the profile progresslm_rl wants 20428 samples, and there are {len(drawn)}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"families": ["poetry"]}, "no sample of a family 'poetry'; families here: procvqa_a"),
        ({"forms": ["rhyme"]}, "forms.0: input should be 'think' or 'no_think'"),
        ({"profile": "big"}, "unknown profile 'big'; known: progresslm_sft"),
        ({"families": ["procvqa_a"], "profile": "progresslm_rl"}, "leave --family and --form out"),
    ],
)
def test_what_is_not_there_is_named(frozen: Frozen, tmp_path: Path, options: dict, message: str):
    with pytest.raises(UserError, match=message):
        KINDS["llamafactory"](frozen.lake, frozen.selection, tmp_path / "out", options)
    assert not (tmp_path / "out").exists()


def test_a_profile_needs_a_release(frozen: Frozen, tmp_path: Path):
    with pytest.raises(UserError, match="drawn from a release: name it with --release"):
        KINDS["datasets"](frozen.lake, Selection(allow=ANY), tmp_path, {"profile": "progresslm_rl"})


def test_an_empty_selection_writes_nothing(frozen: Frozen, tmp_path: Path):
    with pytest.raises(UserError, match="nothing to export"):
        KINDS["datasets"](frozen.lake, Selection(release="r1", allow=ANY, where="num_frames > 9999"), tmp_path / "out")
    with pytest.raises(UserError, match="nothing to export: tiny: its licence is unknown"):
        KINDS["datasets"](frozen.lake, Selection(release="r1"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_things_is_left_alone(frozen: Frozen, tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(UserError, match="is not empty, and what it holds is no export"):
            KINDS["datasets"](frozen.lake, frozen.selection, tmp_path, overwrite=overwrite)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_what_shows_an_episode_taken_down_since_is_left_out(own: Made, tmp_path: Path):
    lake = Lake(own.space)
    create_release(lake, "r1", allow=ANY)
    counts: dict[int, set[str]] = {}  # samples that show an episode
    for s in read_samples([Path(p) for p in own.space.root.glob("shards/*/*.tar")]):
        for e in {int(shown_path(s.row, p).split("/")[1]) for p in s.row["pictures"]} | {s.row["episode_index"]}:
            counts.setdefault(e, set()).add(s.row["sample_id"])
    gone = max(counts, key=lambda e: len(counts[e]))
    before = KINDS["datasets"](lake, Selection(release="r1", allow=ANY), tmp_path / "before")
    take_down(lake, "tiny", [gone], "withdrawn")
    done = KINDS["datasets"](lake, Selection(release="r1", allow=ANY), tmp_path / "after")
    assert done.left_out == (f"tiny: episodes {gone} taken down",)
    assert done.samples is not None
    assert before.samples is not None
    assert done.samples == before.samples - len(counts[gone])
    for path in (tmp_path / "after/samples").rglob("*.parquet"):
        for row in pq.read_table(path, columns=["images", "episode_index"]).to_pylist():
            assert row["episode_index"] != gone
            assert not any(f"/{gone:06d}/" in i["path"] for i in row["images"])
    lake.con.close()


def test_the_commands(frozen: Frozen, tmp_path: Path):
    from typer.testing import CliRunner

    from cli.main import make_app

    def run(*words: str) -> dict:
        common = ["--workspace", str(frozen.lake.workspace.root), "--allow-licence", "unknown", "--format", "json"]
        result = CliRunner().invoke(make_app(), ["export", *words, *common], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    for kind in KINDS:
        told = run(kind, "--out", str(tmp_path / kind), "--release", "r1")
        assert (told["kind"], told["again"]) == (kind, False)
        assert hashes_of(tmp_path / kind) == hashes_of(frozen.folder / kind)
        assert run(kind, "--out", str(tmp_path / kind), "--release", "r1")["again"]
    chosen = ("--family", "progresslm_text", "--form", "think", "--dataset", "tiny", "--episodes", "0-2")
    told = run("datasets", "--out", str(tmp_path / "chosen"), *chosen)
    wanted = [s.row for s in think(frozen.samples).values() if s.row["family"] == "progresslm_text"]
    assert told["samples"] == sum(row["episode_index"] <= 2 for row in wanted)
    told = run("easyr1", "--out", str(tmp_path / "rl"), "--release", "r1", "--profile", "progresslm_rl", "--seed", "1")
    assert told["notes"]
    told = run("rerun", "--out", str(tmp_path / "rrd"), "--dataset", "tiny", "--episodes", "1", "--pictures-per-s", "1")
    assert (told["episodes"], told["files"]) == (1, 2)


def test_names_of_pictures_are_read_as_they_are_written():
    from warehouse.shards import picture_name

    for episode, camera, frame, edit in [
        (7, "observation.images.front", 3, ""),
        (7, "cam.000001", 12, "occluded-5b9525f6"),
        (1234567, "c", 9999999, ""),
        (8, "e000007x", 0, "edited-aa"),
    ]:
        name = picture_name(7, {"episode_index": episode, "camera": camera, "frame_index": frame, "edit": edit})
        path = shown_path({"dataset": "d", "episode_index": 7, "sample_id": "s"}, name)
        assert path == f"d/{episode:06d}/{camera}/{frame:06d}{'.' * bool(edit)}{edit}.jpg"
    with pytest.raises(ShardError, match="no picture's name"):
        shown_path({"dataset": "d", "episode_index": 7, "sample_id": "s"}, "samples.json")


def test_jpegs_are_jpegs(frozen: Frozen):
    path = next((frozen.folder / "llamafactory/images").rglob("*.jpg"))
    with Image.open(io.BytesIO(path.read_bytes())) as picture:
        assert (picture.format, picture.size) == ("JPEG", (64, 48))


def test_a_corpus_whose_shards_are_behind_is_refused(own: Made, tmp_path: Path):
    lake = Lake(Workspace(own.space.root))
    lake.con.execute("DELETE FROM lake.sample_location WHERE chunk = 0")
    with pytest.raises(UserError, match=r"tiny has \d+ samples that are in no shard yet: build it again"):
        KINDS["datasets"](lake, Selection(allow=ANY), tmp_path / "out")
    lake.con.close()
