"""Registry files: what they may say, one line for each way to get them wrong, and what the built-in ones say."""

import csv
import re
from math import ceil
from pathlib import Path

import pytest

from core.errors import UserError
from core.paths import ROOT
from ingest.registry import BUILT_IN, NAME_PATTERN, Cameras, DatasetConfig, Gripper, load_entry, load_registry, name_of
from pipeline.config import load_config
from warehouse.releases.licences import UNKNOWN, classify

GOOD = """
name: my_arm
source: data/raw
cameras: {exo: [front, side], wrist: [wrist]}
gripper: {column: action, dimension: 6}
fps: 15
role: ood
"""
GRIPPERS = "name: a\nsource: b\ngripper: [{{arm: left, dimension: 5}}, {{{}}}]\n"


def test_entry(tmp_path: Path) -> None:
    (tmp_path / "my_arm.yaml").write_text(GOOD)
    entry = load_entry(tmp_path / "my_arm.yaml")
    assert entry.source == str((tmp_path / "data/raw").resolve())
    assert entry.cameras.ordered() == ("front", "side", "wrist")
    assert entry.gripper == Gripper(column="action", dimension=6)
    assert (entry.fps, entry.role, entry.chunk_size, entry.format, entry.title) == (15.0, "ood", 500, None, None)


@pytest.mark.parametrize(
    ("text", "views"),
    [
        ("cameras: [front, wrist]", ("front", "wrist")),
        ("cameras: {wrist: [wrist], views: [front, wrist]}", ("front", "wrist")),
        ("cameras: front", ("front",)),
        ("camera: front", ("front",)),
        ("cameras: {exo: [front]}", ()),
    ],
)
def test_the_views_that_labels_are_made_by(tmp_path: Path, text: str, views: tuple[str, ...]) -> None:
    (tmp_path / "a.yaml").write_text(f"name: a\nsource: b\n{text}\n")
    entry = load_entry(tmp_path / "a.yaml")
    assert entry.cameras.views == views
    assert entry.cameras.ordered() == (views or ("front",))
    assert DatasetConfig.model_validate_json(entry.model_dump_json()) == entry


def test_without_views_a_dataset_is_written_as_it_was_before_there_were_any() -> None:
    entry = DatasetConfig(name="a", source="b", cameras=Cameras(exo=("front",)))
    assert entry.model_dump()["cameras"] == {"exo": ("front",), "ego": (), "wrist": (), "bgr": ()}


def test_grippers_of_two_arms(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GRIPPERS.format("arm: right, dimension: [a, b]"))
    entry = load_entry(tmp_path / "a.yaml")
    left, right = Gripper(arm="left", dimension=5), Gripper(arm="right", dimension=("a", "b"))
    assert entry.gripper == entry.grippers == (left, right)
    assert DatasetConfig.model_validate_json(entry.model_dump_json()) == entry
    one = DatasetConfig(name="a", source="b", gripper=left)
    assert (one.grippers, DatasetConfig(name="a", source="b").grippers) == ((left,), ())


def test_defaults(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: a\nsource: /somewhere/else\n")
    entry = load_entry(tmp_path / "a.yaml")
    assert (entry.source, entry.role, entry.gripper, entry.cameras) == ("/somewhere/else", "train", None, Cameras())


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (GOOD + "cammeras: {}\n", "cammeras: is not a known field"),
        (GOOD + "chunk_size: many\n", "chunk_size: input should be a valid integer"),
        (GOOD.replace("15", "0"), "fps: input should be greater than 0"),
        (GOOD.replace("15", ".inf"), "fps: input should be a finite number"),
        (GOOD.replace("ood", "test"), "role: input should be 'train' or 'ood'"),
        (GOOD.replace("my_arm", "My Arm"), "name: string should match pattern"),
        (GOOD.replace("my_arm", "a.b"), "name: string should match pattern"),
        (GOOD.replace("data/raw", "' '"), "source: must name a folder, a file or an address"),
        (GOOD.replace("{exo:", "{exoo:"), "cameras.exoo: is not a known field"),
        ("name: a\nsource: b\ncameras: [x, x]\n", "cameras.views: names a camera twice"),
        (GOOD + "camera: front\n", "give camera or cameras, not both"),
        ("name: a\nsource: b\ncameras: 6\n", "cameras: input should be a valid dictionary"),
        (
            GOOD.replace("column: action", "column: force"),
            "gripper.column: input should be 'state', 'action' or 'none'",
        ),
        (GRIPPERS.format("arm: left, dimension: 6"), "gripper: a list holds one gripper of each arm"),
        (GRIPPERS.format("arm: right, column: 3"), "gripper.1.column: input should be 'state', 'action' or 'none'"),
        ("name: a\nsource: b\ngripper: []\n", "gripper: a list holds one gripper of each arm"),
        ("name: a\nsource: b\ngripper: 6\n", "gripper: input should be a valid dictionary"),
        (GOOD + "format: hdf\n", "format: input should be 'rlds', 'agibot', 'rh20t'"),
        ("name: a\n", "source: field required"),
        ("name: a\n  source: [\n", "is not valid YAML"),
        (GOOD + "notes: 2024-13-45\n", "is not valid YAML"),
        ("!!python/object/apply:os.getcwd []\n", "is not valid YAML"),
        ("a: &a [x, x]\nb: &b [*a, *a]\n", "aliases"),  # thirty such lines were still busy at 40 s
        ("[" * 100_000, "nested too deeply"),
        ("", "must hold a mapping of fields"),
        ("- a\n- b\n", "must hold a mapping of fields"),
        ("1: a\nname: b\n", "field names must be words"),
        (b"name: caf\xe9\n", "is not valid YAML"),
    ],
)
def test_errors_in_one_line(tmp_path: Path, text: str | bytes, what: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(UserError) as error:
        load_entry(path)
    message = str(error.value)
    assert str(path) in message
    assert what in message
    assert "\n" not in message


def test_several_errors_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: a\nfps: -1\nrobott: x\n")
    with pytest.raises(UserError) as error:
        load_entry(tmp_path / "a.yaml")
    assert str(error.value).count(";") == 2


def test_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*none\.yaml: No such file"):
        load_entry(tmp_path / "none.yaml")
    with pytest.raises(UserError, match=r"cannot read .*: Is a directory"):
        load_entry(tmp_path)


def test_registry_of_two_folders(tmp_path: Path) -> None:
    for folder, name in (("a", "one"), ("b", "two")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{name}.yaml").write_text(f"name: {name}\nsource: x\n")
    (tmp_path / "b/readme.md").write_text("not an entry")
    entries = load_registry([tmp_path / "a", tmp_path / "b"])
    assert {n: Path(e.source).parent.name for n, e in entries.items()} == {"one": "a", "two": "b"}


def test_a_name_used_twice(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: arm\nsource: x\n")
    (tmp_path / "b.yml").write_text("name: arm\nsource: y\n")
    with pytest.raises(UserError, match=r"b\.yml: the name arm is used by another file too"):
        load_registry([tmp_path])


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"registry folder .*none does not exist"):
        load_registry([tmp_path / "none"])


# The built-in entries

OURS = {"sim_long", "sim_short"}
THIRTY = {
    "agibot_alpha", "agibot_beta", "austin_buds", "austin_sailor", "austin_sirius", "berkeley_autolab_ur5",
    "berkeley_fanuc_manipulation", "bridge_v2", "cmu_play_fusion", "columbia_cairlab_pusht_real",
    "dlr_edan_shared_control", "dlr_sara_pour", "dobbe", "droid", "fmb", "fractal", "gr1_teleop_sim",
    "iamlab_cmu_pickup_insert", "jaco_play", "language_table", "libero", "nyu_door_opening",
    "qut_dexterous_manipulation", "rh20t", "robotwin2", "stanford_hydra", "table30", "toto", "ucsd_kitchen",
    "utaustin_mutex",
}  # fmt: skip
EXTRAS = {"nyu_franka_play", "plex_robosuite", "robo_set", "taco_play"}
# Of the field of 2026, written from cards and lists: what was not seen is said in the notes
FIELD = {"abc_130k", "agibot_world_2026", "galaxea", "robocoin", "robomind_v2"}
# Episodes on disk, where what is published counts something else (trajectories) or nothing
ON_DISK = {"agibot_alpha": 34_512, "agibot_beta": 168_869, "rh20t": 110_000, "table30": 0}


@pytest.fixture(scope="module")
def entries() -> dict[str, DatasetConfig]:
    return load_registry([BUILT_IN])


@pytest.fixture(scope="module")
def published(entries: dict[str, DatasetConfig]) -> dict[str, DatasetConfig]:
    """Those that others made."""
    return {n: e for n, e in entries.items() if n not in OURS}


def test_thirty_datasets_extras_the_field_and_our_own(entries: dict[str, DatasetConfig]) -> None:
    assert len(THIRTY) == 30
    assert set(entries) == THIRTY | EXTRAS | FIELD | OURS
    assert {p.stem for p in BUILT_IN.glob("*.yaml")} == set(entries), "a file is called as its dataset"
    known = {n: (entries[n].format, entries[n].role, entries[n].group_field) for n in OURS}
    assert known == {"sim_short": ("lerobot", "train", "start_state"), "sim_long": ("lerobot", "ood", "start_state")}


def test_every_entry_says_what_one_has_to_know(published: dict[str, DatasetConfig]) -> None:
    for name, e in published.items():
        assert e.title, name
        assert e.format, name
        assert e.citation, name
        assert e.notes, name
        assert e.cameras.ordered() or (name in FIELD and "names of cameras" in e.notes), name
        assert set(e.cameras.bgr) <= set(e.cameras.ordered()), name
        assert len(set(e.cameras.ordered())) == len(e.cameras.ordered()), name
        # a port says its own rate; where the format has none, the registry does
        assert (e.fps is None) == (e.format == "lerobot") or (name in FIELD and "frame rate" in e.notes), name
        assert e.license or "licence" in e.notes, f"{name}: an unknown licence is said to be so"
        assert e.robot or name == "qut_dexterous_manipulation", name


def test_sources(published: dict[str, DatasetConfig]) -> None:
    """A hub repository or a public bucket; one has to be fetched by hand."""
    by_hand = {n for n, e in published.items() if not e.is_remote}
    assert by_hand == {"rh20t", "agibot_world_2026", "galaxea", "robomind_v2"}
    assert {published[n].source for n in by_hand} == {str(ROOT / "data" / n) for n in by_hand}
    for name, e in published.items():
        if e.format == "rlds":
            assert re.fullmatch(r"gs://gresearch/robotics/[a-z0-9_]+/\d+\.\d+\.\d+", e.source), name
            assert e.keys.language == ("language_instruction",), name
        elif e.is_remote:
            assert re.fullmatch(r"hf://[\w-]+/[\w.-]+", e.source), name
        if e.format == "lerobot":
            assert all(c.startswith("observation.images.") for c in e.cameras.ordered()), name
            assert e.is_remote or (name in FIELD and ".tar.gz" in (BUILT_IN / f"{name}.yaml").read_text()), name
    assert len({e.source for e in published.values()}) == len(published)


def test_a_revision_is_a_commit_or_is_said_to_be_lacking(published: dict[str, DatasetConfig]) -> None:
    on_the_hub = {n: e for n, e in published.items() if e.source.startswith("hf://")}
    pinned = {n for n, e in on_the_hub.items() if e.revision}
    assert pinned == {"abc_130k", "fmb", "fractal", "language_table", "stanford_hydra"}
    for name, e in on_the_hub.items():
        if e.revision:
            assert re.fullmatch("[0-9a-f]{40}", e.revision), name
        else:
            assert "revision" in (e.notes or ""), name


def test_licences_that_a_converter_wrote_are_called_so(published: dict[str, DatasetConfig]) -> None:
    """And are unknown to a release; what LeRobot writes where no licence is given is none of these datasets'."""
    by_default = {n for n, e in published.items() if "default" in (e.license or "")}
    assert by_default == {"bridge_v2", "dobbe", "fmb", "fractal", "language_table"}
    assert {classify(published[n].license).kind for n in by_default} == {UNKNOWN}
    assert not any("port's card" in (e.license or "") for e in published.values())
    for name, e in published.items():
        if e.source.startswith("hf://IPEC-COMMUNITY/"):
            assert e.license != "apache-2.0", name
            assert "its converter writes that for every dataset" in (e.notes or ""), name


def test_no_port_that_is_read_stores_bgr(published: dict[str, DatasetConfig]) -> None:
    """RLDS and lerobot/ do, for these; the ports of IPEC-COMMUNITY have turned them, and say so in their notes."""
    turned = {n for n, e in published.items() if "as BGR" in (e.notes or "")}
    assert turned == {
        "berkeley_autolab_ur5", "berkeley_fanuc_manipulation", "fmb", "stanford_hydra", "utaustin_mutex",
    }  # fmt: skip
    assert all(published[n].source.startswith("hf://IPEC-COMMUNITY/") for n in turned)
    assert not any(e.cameras.bgr for e in published.values())


@pytest.mark.parametrize(
    ("name", "gripper"),
    [
        ("austin_sailor", Gripper(dimension=7, closed=0, open=0.079)),  # metres
        ("berkeley_autolab_ur5", Gripper(dimension=7, closed=1, open=0)),  # gripper_is_closed
        ("bridge_v2", Gripper(dimension=7, closed=0, open=1)),
        ("columbia_cairlab_pusht_real", Gripper(column="action", dimension=6, closed=1, open=-1)),  # closedness
        ("droid", Gripper(dimension=7, closed=1, open=0)),
        ("fmb", Gripper(dimension=7, closed=1, open=0)),
        ("plex_robosuite", Gripper(column="action", dimension=6, closed=1, open=-1)),  # as robosuite's
        (
            "robotwin2",
            (
                Gripper(arm="left", dimension=6, closed=0, open=1),
                Gripper(arm="right", dimension=13, closed=0, open=1),
            ),
        ),
        ("libero", Gripper(dimension=6, closed=0, open=0.04)),  # 7 is the other finger
        ("dlr_edan_shared_control", Gripper(column="action", dimension=6, closed=0, open=1)),  # state[7] is always 0
        ("dlr_sara_pour", Gripper(column="action", dimension=6, closed=1, open=0)),  # not turned by its port
        ("jaco_play", Gripper(column="action", dimension=6, closed=0, open=1)),  # state[7] is of a quaternion
        ("taco_play", Gripper(column="action", dimension=6, closed=0, open=1)),  # state[7] is the first joint
        ("toto", Gripper(column="action", dimension=6, closed=0, open=1)),
        ("nyu_door_opening", Gripper(column="action", dimension=6, closed=0, open=1)),  # its state is all zeros
        ("ucsd_kitchen", Gripper(column="action", dimension=6)),  # readers disagree
        ("language_table", Gripper(column="none")),
        (
            "gr1_teleop_sim",
            (
                Gripper(arm="left", dimension=(7, 8, 9, 10), closed=1.4, open=0),  # fingers
                Gripper(arm="right", dimension=(29, 30, 31, 32), closed=1.4, open=0),
            ),
        ),
        ("agibot_beta", None),  # by name: hands and grippers differ by task
    ],
)
def test_grippers(entries: dict[str, DatasetConfig], name: str, gripper: Gripper | tuple[Gripper, ...] | None) -> None:
    assert entries[name].gripper == gripper


def test_the_polarity_of_every_gripper_is_stated(entries: dict[str, DatasetConfig]) -> None:
    """Or said to be unknown. Of four it is found in the data: hands and grippers differ by task, robot or folder."""
    unknown = {n for n, e in entries.items() for g in e.grippers if g.column != "none" and g.open is None}
    assert unknown == {"ucsd_kitchen"}
    assert "is open is not known" in (entries["ucsd_kitchen"].notes or "")
    found = {n for n, e in entries.items() if e.gripper is None}
    assert found == {"agibot_alpha", "agibot_beta", "rh20t", "table30"} | FIELD


def test_instructions_and_annotators(published: dict[str, DatasetConfig]) -> None:
    found: dict[str, set[str]] = {}
    for name, e in published.items():
        found.setdefault(e.instruction, set()).add(name)
    assert found.pop("uninformative") == {
        "austin_buds", "austin_sailor", "austin_sirius", "nyu_door_opening", "nyu_franka_play", "stanford_hydra",
        "toto", "utaustin_mutex",
    }  # fmt: skip
    assert found.pop("paraphrases") == {"droid", "robotwin2", "taco_play"}
    assert found.pop("timed_steps") == {"agibot_alpha", "agibot_beta"}
    assert set(found) == {"given"}
    assert {n for n, e in published.items() if e.annotator == "native"} == {"agibot_alpha", "agibot_beta"}


def test_datasets_without_a_camera_that_sees_the_scene(published: dict[str, DatasetConfig]) -> None:
    without = {n for n, e in published.items() if not e.cameras.exo} - FIELD
    # rh20t: every camera that is not in a hand, whatever its serial number
    assert without == {"agibot_alpha", "agibot_beta", "dobbe", "gr1_teleop_sim", "nyu_door_opening", "rh20t"}


def test_what_is_held_out_is_said_to_be_our_choice(published: dict[str, DatasetConfig]) -> None:
    held_out = {n for n, e in published.items() if e.role == "ood"}
    assert held_out == {"berkeley_fanuc_manipulation", "dlr_edan_shared_control", "jaco_play", "ucsd_kitchen"}
    assert all("by our choice" in (published[n].notes or "") for n in held_out)


def test_chunks_are_of_a_like_size(published: dict[str, DatasetConfig]) -> None:
    """About 800 in all (agibot_beta, which holds agibot_alpha, left out), and none so long that it stops a build."""
    names = THIRTY - {"agibot_beta"}
    episodes = {n: ON_DISK.get(n, published[n].published.episodes or 0) for n in names}
    assert sum(ceil(count / published[n].chunk_size) for n, count in episodes.items()) == 804
    for name in names:
        size = published[name].published
        if size.frames and size.episodes:
            frames = size.frames / size.episodes * min(published[name].chunk_size, size.episodes)
            assert frames < 400_000, name


def test_the_full_build_names_the_thirty() -> None:
    builds = load_config(ROOT / "configs" / "full.toml")
    assert len(builds) == 30
    assert {b.name for b in builds} == THIRTY


def test_sizes_are_those_of_the_collected_facts(published: dict[str, DatasetConfig]) -> None:
    with Path(__file__).with_name("dataset_facts.csv").open() as f:
        rows = {r["id"]: r for r in csv.DictReader(f)}
    assert set(rows) == set(published) - FIELD
    more = {"qut_dexterous_manipulation": 20}  # tasks: the dataset's paper
    for name, row in rows.items():
        e = published[name]
        facts = [int(row[k]) if row[k] else None for k in ("total_episodes", "total_frames", "total_tasks")]
        facts[2] = more.get(name, facts[2])
        assert [e.published.episodes, e.published.frames, e.published.tasks] == facts, name
        assert (e.fps or e.published.fps) == (float(row["fps"]) if row["fps"] else None), name
        if e.format == "lerobot":
            assert e.source == f"hf://{row['hf_repo']}", name
        assert e.revision == (row["hf_commit"] or None), name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("sim_short", "sim_short"),
        ("gr1_unified.PnP Cup", "gr1_unified_pnp_cup"),
        ("2026-11-22 (lab)", "2026-11-22_lab"),
        ("_private-", "private-"),
        ("写真", ""),
        ("...", ""),
    ],
)
def test_names_made_of_folders(text: str, name: str) -> None:
    assert name_of(text) == name
    assert not name or re.match(NAME_PATTERN, name)
