"""What a source holds is read, or named as not read: parts of made-up names in each format, and files of any number."""

import pytest

from ingest.episode import SourcePart
from ingest.reasons import REASONS
from ingest.source import list_episodes
from ingest.source_parts import PartCensus, joined, part_text
from ingest.unread_files import MAX_PATTERNS
from pipeline.inspection import inspect_source
from tests.kits.fuzz_datasets import BASES, write_base
from tests.kits.lerobot_writer import source_of, write_v2
from tests.kits.made_up_parts import write_with_parts


@pytest.mark.parametrize("base", [*BASES, "mcap"])
def test_a_part_of_a_made_up_name_is_named(tmp_path, base):
    """Each is in the list of parts or in a finding; what is used for nothing is a finding that
    names it."""
    fields, names = write_with_parts(base, root := tmp_path / "set")
    result = inspect_source(root, format=fields.get("format"))
    details = [f"{f['detail']} {f['file']} {f['camera']}" for f in result["findings"]]
    parts = result["parts"]
    silent = [
        name
        for name in names
        if not any(name in part["name"] for part in parts)
        and not any(name in detail for detail in details)
    ]
    assert silent == [], [part["name"] for part in parts]
    unknown = [part for part in parts if part["status"] == "unknown"]
    unsaid = [
        part["name"] for part in unknown if not any(part["name"] in detail for detail in details)
    ]
    assert unsaid == []
    assert any("quux_readings.bin" in part["name"] for part in unknown)


@pytest.mark.parametrize("base", BASES)
def test_nothing_of_a_plain_dataset_is_unknown(tmp_path, base):
    fields = write_base(base, root := tmp_path / "set")
    listing = list_episodes(source_of(root, **fields))
    assert [part_text(part) for part in listing.parts if part.status == "unknown"] == []
    uses = {part.use for part in listing.parts if part.status == "used"}
    assert "camera" in uses, listing.parts


def test_files_that_no_reader_opens_are_named_by_pattern(tmp_path):
    root = write_v2(tmp_path / "set", [6, 7])
    for name in ("README.md", "LICENSE", "md5sum.txt", "docs/paper.pdf"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("x")
    for k in range(30):
        (root / f"sound/take_{k}").mkdir(parents=True)
        (root / f"sound/take_{k}/left.wav").write_bytes(b"RIFF")
    (root / "license_plates.npy").write_bytes(b"x")
    listing = list_episodes(source_of(root))
    parts_by_name = {
        part.name: (part.status, part.num_times) for part in listing.parts if part.kind == "file"
    }
    assert parts_by_name["sound/take_*/left.wav"] == ("unknown", 30)
    assert parts_by_name["license_plates.npy"] == ("unknown", 1)
    assert {
        name: parts_by_name[name]
        for name in ("README.md", "LICENSE", "md5sum.txt", "docs/paper.pdf")
    } == {
        "README.md": ("known", 1),
        "LICENSE": ("known", 1),
        "md5sum.txt": ("known", 1),
        "docs/paper.pdf": ("known", 1),
    }
    [finding] = [f for f in listing.findings if "left.wav" in f.detail]
    assert (finding.reason, finding.severity, finding.file) == (
        "part_not_used",
        "warning",
        "sound/take_0/left.wav",
    )
    assert finding.reason in REASONS


def test_many_names_are_one_line_for_each_folder_and_suffix(tmp_path):
    root = write_v2(tmp_path / "set", [6])
    (root / "extra").mkdir()
    for k in range(2 * MAX_PATTERNS):
        letters = "".join(chr(ord("a") + int(digit)) for digit in f"{k:03d}")
        (root / f"extra/{letters}.npy").write_bytes(b"x")
    parts = [part for part in list_episodes(source_of(root)).parts if part.status == "unknown"]
    assert [(part.name, part.num_times) for part in parts] == [("extra/*.npy", 2 * MAX_PATTERNS)]


def test_more_parts_than_the_limit_are_a_finding(tmp_path):
    root = write_v2(tmp_path / "set", [6])
    for k in range(30):
        letters = "".join(chr(ord("a") + int(digit)) for digit in f"{k:02d}")
        (root / letters).mkdir()
        (root / letters / "x.npy").write_bytes(b"x")
    listing = list_episodes(source_of(root, limits={"max_features": 20}))
    assert len(listing.parts) == 20
    [finding] = [f for f in listing.findings if f.reason == "over_limit"]
    assert "limits.max_features" in finding.detail


def test_a_census_counts_alike_parts_as_one():
    census = PartCensus()
    for length in (6, 7):
        shape = (length, 3)
        file = f"{length}.h5"
        census.add(
            SourcePart("array", "obs/x", "used", "state", "its name", shape, "float32", file)
        )
    reason = "no key of this format is called so"
    census.add(SourcePart("topic", "/odd", "unknown", "", reason, (4,)))
    first, second = census.listed()
    assert first == SourcePart(
        "array", "obs/x", "used", "state", "its name", (None, 3), "float32", "6.h5", 2
    )
    assert part_text(second) == "topic /odd (4): no key of this format is called so"
    assert joined([first, first, second])[0].num_times == 4
    assert [f.reason for f in census.findings()] == ["part_not_used"]
