"""Real bytes of other people's datasets: what may be committed, and what lies beside some
checkouts."""

from collections import Counter

from annotate.config import FramesConfig
from annotate.frames import FramesResult, frames_stage
from core.paths import ROOT
from ingest.episode import EpisodeRecord, Listing
from ingest.signals.survey import survey
from ingest.sources.files import Source

REAL = ROOT / "tests/data/real"  # their README.md and SOURCE.md say whose they are
GR1 = REAL / "gr1_pick_place"
BRIDGE = REAL / "bridge_rlds"

# Whole datasets and specifications that may not be committed; tests/beside/ reads them, where they are
BESIDE = (ROOT / ".." / "shared").resolve()


def usable(listing: Listing) -> list[EpisodeRecord]:
    """Records of which nothing is found that makes them unusable."""
    unusable = {f.episode_index for f in listing.findings if f.severity == "unusable"}
    return [r for r in listing.records if r.episode_index not in unusable]


def kinds(listing: Listing) -> Counter:
    """How often each (reason, severity, camera) is found."""
    return Counter((f.reason, f.severity, f.camera) for f in listing.findings)


def measured(source: Source, records: list[EpisodeRecord]) -> FramesResult:
    """What the stage `frames` measures, with the grippers that these records show, and without
    keyframes."""
    signals = survey(source, records, None).signals
    config = FramesConfig(keyframe_interval_s=100)
    return frames_stage(source, records, 0, config, lambda sha256, jpeg: None, signals=signals)
