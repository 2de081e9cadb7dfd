"""Figures in the text of pages, from what the measuring scripts stored in docs/data: `python docs/make_stated.py`.

A figure stands between markers that name it: <!--=truth.mean-->0.057<!--=-->. tests/docs compares.
"""

import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from core.paths import ROOT

PAGES = ("README.md", "docs/index.md", "docs/correcting.md")
MARKED = re.compile(r"<!--=([\w.]+)-->(.*?)<!--=-->", re.DOTALL)


def stored(name: str) -> Any:
    """What a script stored in docs/data."""
    return json.loads((ROOT / "docs" / "data" / f"{name}.json").read_text())


def truth() -> Mapping[str, str]:
    """Written by benchmarks/label_truth.py."""
    sets = stored("truth")["real"]
    return {
        "truth.mean": f"{fmean(one['left_out'] for one in sets):.3f}",
        "truth.clock": f"{fmean(one['clock'] for one in sets):.3f}",
        "truth.episodes": str(sum(one["episodes"] for one in sets)),
    }


def policy() -> Mapping[str, str]:
    """Written by benchmarks/policy: shares of runs that succeed."""
    return {
        f"policy.{name}": f"{100 * share[0]:.0f} %"
        for name, share in stored("policy")["success"].items()
    }


def laptop() -> Mapping[str, str]:
    """Written by benchmarks/laptop.py: errors of progress."""
    found = stored("laptop")
    return {f"laptop.{name}": f"{value:.3f}" for name, value in found["mae"].items()}


def measured() -> Mapping[str, str]:
    """Written by hand of what scripts printed; each says which and when."""
    return {f"measured.{name}": one["value"] for name, one in stored("measured").items()}


SOURCES: tuple[Callable[[], Mapping[str, str]], ...] = (truth, policy, laptop, measured)


def figures() -> dict[str, str]:
    """All figures that a page may state, by name."""
    return {name: value for source in SOURCES for name, value in source().items()}


def filled(text: str) -> str:
    """The text with each marked figure as it is stored. Raises KeyError for a name that no source has."""
    known = figures()
    return MARKED.sub(lambda marked: f"<!--={marked[1]}-->{known[marked[1]]}<!--=-->", text)


def main() -> None:
    for page in PAGES:
        path = ROOT / page
        path.write_text(filled(path.read_text()))


if __name__ == "__main__":
    main()
