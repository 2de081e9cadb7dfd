"""Write docs/dependencies.md, the licence and provenance of every pinned package: `python docs/make_dependencies.py`.

From constraints.txt and the metadata of what is installed; nothing is asked of a network. Exits 1 when a package is not
installed as pinned, or says nothing of its licence that is known here.
"""

import re
import sys
from importlib.metadata import PackageMetadata, PackageNotFoundError, metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "dependencies.md"
PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;]+)")
# What metadata leaves out, or gives as a whole text; from the licence files that the packages bring
KNOWN: dict[str, str] = {"axe-playwright-python": "MIT", "cuda-toolkit": "NVIDIA Proprietary Software"}
COPYLEFT = re.compile(r"\b(A?GPL|LGPL|MPL|EUPL|CDDL)", re.IGNORECASE)
INTRO = """\
# Dependencies

Every package that `make setup` installs, as pinned in `constraints.txt`: its licence as the package itself states it,
where it says that it comes from, and which of ours or of these asks for it. Made by `docs/make_dependencies.py` from
the metadata of what is installed; a test fails when the page is old. What was audited and what was not:
[security.md](security.md#dependencies).

## Why these and not others

- **`av` (PyAV)** decodes every video: h264, AV1, MPEG-4, one frame at a time, with FFmpeg's own damage reports.
- **`decord2`** is not used. It took 1.1 to 6.2 times PyAV's CPU time on h264 and AV1, for scattered frames and for all,
  and gives RGB only, while we measure luma ([figures](performance-details.md#reading-some-frames)).
- **`torchcodec`** comes with `lerobot` and is not used: as fast as PyAV for scattered frames, slower for all frames; it
  needs FFmpeg's libraries on the system, and torch.
- **`simplejpeg`** (libjpeg-turbo) encodes pictures of shards from a video's own planes, without RGB in between.
- **`opencv-python-headless`** resizes, and encodes and decodes what is RGB: from RGB `simplejpeg` is no faster.
- **`webdataset`** reads our shards in tests and benchmarks, as its users do. It is not used at run time: importing it
  takes seconds, and its shards repeat each picture in every sample that shows it.
- **`lerobot`** opens LeRobot exports with its own loader (`export lerobot --verify`, and tests). Datasets are read
  without it, since it cannot read v2.x.
- **`dagster`, `dagster-ray`, `dagster-k8s`** show, schedule and spread the work; a build on one machine needs none.
- **`duckdb` with DuckLake** is the lake; its extensions are packages, so that nothing is downloaded at run time.

## All packages
"""


def pins() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Version, and who asks for it, by name, from constraints.txt."""
    found: dict[str, tuple[str, list[str]]] = {}
    name = ""
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if pin := PIN.match(line):
            name = pin[1].lower()
            found[name] = (pin[2], [])
        elif name and (by := re.match(r"^\s+#\s+(?:via$|via\s+)?(.*)$", line)):
            found[name][1].append(re.sub(r"\s*\(.*\)$", "", by[1].strip()))
    return {n: (v, tuple(b for b in by if b)) for n, (v, by) in found.items()}


def licence(name: str, m: PackageMetadata) -> str:
    """As one line: an SPDX expression where there is one, else classifiers, else the first line of the text."""
    if name in KNOWN:
        return KNOWN[name]
    if stated := m.get("License-Expression"):
        return stated
    kinds = [c.rpartition(" :: ")[2] for c in m.get_all("Classifier") or () if c.startswith("License :: ")]
    kinds = [k for k in kinds if k != "OSI Approved"]
    if kinds:
        return ", ".join(dict.fromkeys(kinds))
    text = (m.get("License") or "").strip()
    return text if "\n" not in text and len(text) < 60 else text.split("\n", 1)[0].strip()[:60]


def origin(m: PackageMetadata) -> str:
    """Its repository or home page, by its own word."""
    urls = dict(u.split(", ", 1) for u in m.get_all("Project-URL") or () if ", " in u)
    by_kind = {k.lower().replace(" ", "").replace("-", ""): v for k, v in urls.items()}
    kinds = ("source", "sourcecode", "repository", "github", "code", "homepage", "home", "documentation")
    return next((by_kind[k] for k in kinds if k in by_kind), m.get("Home-page") or "").strip()


def page() -> tuple[str, list[str]]:
    """The page, and what is wrong."""
    rows, wrong, copyleft = [], [], []
    for name, (version, by) in sorted(pins().items()):
        try:
            m = metadata(name)
        except PackageNotFoundError:
            wrong.append(f"{name} {version} is pinned, but not installed")
            continue
        if m["Version"] != version:
            wrong.append(f"{name} is installed as {m['Version']}, not {version}")
        stated = licence(name, m)
        if not stated or stated.upper() == "UNKNOWN":
            wrong.append(f"{name}: no licence is stated; look at its files and add it to KNOWN")
        if COPYLEFT.search(stated):
            copyleft.append(f"{name} ({stated})")
        shown = [b.removesuffix(" (pyproject.toml)") for b in by]
        rows.append(f"| {name} | {version} | {stated} | {origin(m)} | {', '.join(shown)} |")
    head = f"{len(rows)} packages. Licences that ask for something when the package itself is changed or given on: "
    table = ["| package | version | licence | origin | asked for by |", "|---|---|---|---|---|", *rows]
    return "\n".join([INTRO, f"{head}{'; '.join(copyleft) or 'none'}.", "", *table, ""]), wrong


def main() -> None:
    text, wrong = page()
    if wrong:
        sys.exit("\n".join(wrong))
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
