"""Figures in the text of pages, from what the measuring scripts stored in docs/data: `python docs/make_stated.py`.

A figure stands between markers that name it: <!--=truth.mean-->0.057<!--=-->. tests/docs compares.
"""

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from core.paths import ROOT

PAGES = (
    "README.md",
    "docs/index.md",
    "docs/correcting.md",
    "docs/performance.md",
    "docs/training.md",
)
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
    """Written by benchmarks/laptop.py: errors of progress, and every figure with its values by seed."""
    found = stored("laptop")
    errors = {f"laptop.{name}": f"{value:.3f}" for name, value in found["mae"].items()}
    for split, rows in found["by_seed"].items():
        errors |= {f"laptop.{split}.{name}": by_seed(values) for name, values in rows.items()}
    cpu_s = fmean(found["by_seed"]["cost"]["train_cpu_s"])
    return errors | {"laptop.cpu": f"{cpu_s:.0f} s"}


def by_seed(values: Sequence[float]) -> str:
    """The mean, and in brackets each value, where they differ.

    Examples: by_seed([0.5, 0.7]) == "0.600 (0.500, 0.700)"; by_seed([0.5, 0.5]) == "0.500"
    """
    mean = f"{fmean(values):.3f}"
    texts = [f"{value:.3f}" for value in values]
    if len({*texts}) == 1:
        return mean
    return f"{mean} ({', '.join(texts)})"


def explorer() -> Mapping[str, str]:
    """Written by benchmarks/explorer.py."""
    pages = stored("explorer")
    return {
        "explorer.quick": f"{pages['quick']} of {pages['pages']}",
        "explorer.within": f"{pages['within_ms']} ms",
    }


def judging() -> Mapping[str, str]:
    """Written by benchmarks/judging.py: of this checkout, and how many times as much another one took."""
    figures = stored("judging")
    this_checkout = figures["checkouts"]["this"]
    return {
        "judging.cpu": f"{this_checkout['cpu_s']:.2f} s",
        "judging.ratio": f"{figures['ratio']:.0f} times",
    }


def shipped() -> Mapping[str, str]:
    """Written by benchmarks/shipped.py."""
    figures = stored("shipped")
    return {
        "shipped.install": f"{figures['install_gb']} GB",
        "shipped.queue": f"{figures['queued']} of {figures['episodes']}",
        "shipped.queue_failed": f"{figures['failed_queued']} of the {figures['failed']}",
    }


SOURCES: tuple[Callable[[], Mapping[str, str]], ...] = (
    truth,
    policy,
    laptop,
    explorer,
    judging,
    shipped,
)


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
