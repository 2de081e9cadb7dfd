"""Findings of a stage as rows of their table."""

from ingest.episode import MAX_DETAILS, Finding
from pipeline.stage import findings_table


def test_findings_of_one_thing_are_one_row() -> None:
    """It says all of them and is as bad as the worst; the table's key must be unique."""
    findings = [
        Finding("unreadable_data", "cut off", "warning", file="a"),
        Finding("unreadable_data", "cut off", "warning", file="b"),
        Finding("length_differs", "5 or 6", "unusable", 1),
        Finding("length_differs", "5", "warning", 1),
        Finding("length_differs", "5", "warning", 1),
        Finding("no_video", "\0", camera="\0", file="\0"),  # what no table can keep
    ]
    rows = findings_table("d", "episodes", findings, 5).to_pylist()
    assert rows[-1]["camera"] == "\ufffd"
    assert [(r["reason"], r["detail"], r["severity"], r["file"]) for r in rows] == [
        ("unreadable_data", "a cut off; b cut off", "warning", "a"),
        ("length_differs", "5 or 6; 5", "unusable", None),
        ("no_video", "\ufffd", "unusable", "\ufffd"),
    ]

    findings = [Finding("no_video", "cut off", "warning", file=f"{k}") for k in range(20_000)]
    (row,) = findings_table("d", "episodes", findings, 5).to_pylist()
    details = row["detail"].split("; ")
    assert details[:2] == ["0 cut off", "1 cut off"]
    assert details[MAX_DETAILS:] == [f"and {20_000 - MAX_DETAILS} more"]
