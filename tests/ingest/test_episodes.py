"""Texts of a source that no table can keep, and kinds of findings."""

from itertools import chain
from pathlib import Path

import pytest

from ingest.episode import REASONS, Finding
from ingest.episodes import settled_listing
from tests.kits.lerobot_writer import said, source_of, write_v2


def test_findings_are_of_known_kinds() -> None:
    for reason, severity in (("nonsense", "warning"), ("no_video", "fatal")):
        with pytest.raises(ValueError, match="unknown finding"):
            Finding(reason, "x", severity)
    texts = chain.from_iterable(reason[:2] for reason in REASONS.values())
    assert all(text and text[0].islower() for text in texts)


def test_texts_that_the_lake_cannot_hold(tmp_path: Path) -> None:
    """A NUL character anywhere in an episode: it is shown as another, and the episode is not used."""
    root = write_v2(tmp_path, [6, 7], tasks=("a\0b", "pick"))
    result = settled_listing(source_of(root))
    assert said(result.findings) == [("unreadable_data", "unusable", 0, None)]
    assert [r.task for r in result.records] == ["a\ufffdb", "pick"]


def test_texts_beyond_the_limit(tmp_path: Path) -> None:
    """A task of 50 MB ended a build: it is cut off, and its episode is not used."""
    root = write_v2(tmp_path, [6, 7], tasks=("x" * 101, "place it"))
    source = source_of(root, limits={"max_text": 100})
    result = settled_listing(source)
    (finding,) = [f for f in result.findings if f.reason == "over_limit"]
    assert (finding.severity, finding.episode_index) == ("unusable", 0)
    assert finding.detail.startswith(
        "characters of one of its texts: 101, over the limit of 100 (limits.max_text"
    )
    assert [record.task for record in result.records] == ["x" * 100, "place it"]
