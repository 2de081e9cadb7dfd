"""Registry files: what they may say, and one line for each way to get them wrong."""

from pathlib import Path

import pytest

from ingest.registry import BUILT_IN, Cameras, Gripper, RegistryError, load_entry, load_registry

GOOD = """
name: my_arm
source: data/raw
cameras: {exo: [front, side], wrist: [wrist]}
gripper: {column: action, dimension: 6}
fps: 15
role: ood
"""


def test_entry(tmp_path: Path) -> None:
    (tmp_path / "my_arm.yaml").write_text(GOOD)
    entry = load_entry(tmp_path / "my_arm.yaml")
    assert entry.source == str((tmp_path / "data/raw").resolve())
    assert entry.cameras.ordered() == ("front", "side", "wrist")
    assert entry.gripper == Gripper(column="action", dimension=6)
    assert (entry.fps, entry.role, entry.chunk_size, entry.format, entry.title) == (15.0, "ood", 500, None, None)


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
        (GOOD.replace("data/raw", "' '"), "source: value error, must name a folder or file"),
        (GOOD.replace("{exo:", "{exoo:"), "cameras.exoo: is not a known field"),
        (GOOD.replace("column: action", "column: force"), "gripper.column: input should be 'state' or 'action'"),
        (GOOD + "format: hdf\n", "format: input should be 'lerobot' or 'video'"),
        ("name: a\n", "source: field required"),
        ("name: a\n  source: [\n", "is not valid YAML"),
        (GOOD + "notes: 2024-13-45\n", "is not valid YAML"),
        ("!!python/object/apply:os.getcwd []\n", "is not valid YAML"),
        ("", "must hold a mapping of fields"),
        ("- a\n- b\n", "must hold a mapping of fields"),
        ("1: a\nname: b\n", "field names must be words"),
        (b"name: caf\xe9\n", "is not valid YAML"),
    ],
)
def test_errors_in_one_line(tmp_path: Path, text: str | bytes, what: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(RegistryError) as error:
        load_entry(path)
    message = str(error.value)
    assert str(path) in message
    assert what in message
    assert "\n" not in message


def test_several_errors_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: a\nfps: -1\nrobott: x\n")
    with pytest.raises(RegistryError) as error:
        load_entry(tmp_path / "a.yaml")
    assert str(error.value).count(";") == 2


def test_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"cannot read .*none\.yaml: No such file"):
        load_entry(tmp_path / "none.yaml")
    with pytest.raises(RegistryError, match=r"cannot read .*: Is a directory"):
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
    with pytest.raises(RegistryError, match=r"b\.yml: the name arm is used by another file too"):
        load_registry([tmp_path])


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"registry folder .*none does not exist"):
        load_registry([tmp_path / "none"])


def test_built_in_entries() -> None:
    entries = load_registry([BUILT_IN])
    known = {n: (entries[n].format, entries[n].role, entries[n].group_field) for n in ("sim_short", "sim_long")}
    assert known == {"sim_short": ("lerobot", "train", "start_state"), "sim_long": ("lerobot", "ood", "start_state")}
