"""Real bytes of other people's datasets: what may be committed, and what lies beside some checkouts."""

from core.paths import ROOT

REAL = ROOT / "tests/data/real"  # their README.md and SOURCE.md say whose they are
GR1, BRIDGE, DOPAMINE = REAL / "gr1_pick_place", REAL / "bridge_rlds", REAL / "robo_dopamine"

# Whole datasets and specifications that may not be committed; tests/beside/ reads them, where they are
BESIDE = (ROOT / ".." / "shared").resolve()
