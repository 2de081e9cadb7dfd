"""The shards of a build, read as the page on samples says."""

from typing import Any

from core.paths import ROOT, Workspace
from tests.kits.lerobot_writer import write_v2
from tests.kits.made_corpus import build_of, built
from tests.kits.pages_kit import blocks


def test_the_page_reads_cameras_whatever_they_are_called(tmp_path, monkeypatch):
    cameras = ("Top", "arm/left", "camera/front.rgb", "wrist")
    source = write_v2(tmp_path / "source", [14, 16, 15, 17, 14], cameras)
    built_corpus = built(build_of(source), Workspace(tmp_path / "workspace"))
    shown_cameras = {
        camera
        for (camera,) in built_corpus.rows("SELECT DISTINCT unnest(pictures).camera FROM samples")
    }
    assert shown_cameras == set(cameras)

    (block,) = (
        b for b in blocks(ROOT / "docs/samples.md") if b.kind == "python" and "WebDataset" in b.text
    )
    monkeypatch.chdir(tmp_path)
    page: dict[str, Any] = {"seen": 0}
    # The page's last line is indented: it runs for each sample, and so does what counts them
    exec(f"{block.text}\n        seen += len(pictures) == len(sample['frames']) > 0", page)
    train = built_corpus.rows(
        "SELECT count(*) FROM samples WHERE split = 'train' AND len(pictures) = len(frames)"
    )
    assert page["seen"] == train[0][0] > 0
