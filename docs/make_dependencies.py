"""Write docs/data/dependencies.csv, licence and origin of every pinned package: `python docs/make_dependencies.py`.

From constraints.txt and the metadata of what is installed; nothing is asked of a network. Exits 1 when a package is not
installed as pinned, or says nothing of its licence that is known here.
"""

import csv
import io
import re
import sys
from importlib.metadata import PackageMetadata, PackageNotFoundError, metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILE = ROOT / "docs" / "data" / "dependencies.csv"
PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;]+)")
# What metadata leaves out, or gives as a whole text; from the licence files that the packages bring
KNOWN: dict[str, str] = {
    "axe-playwright-python": "MIT",
    "mlcroissant": "Apache-2.0",
    "cuda-toolkit": "NVIDIA Proprietary Software",
}
COPYLEFT = re.compile(r"\b(A?GPL|LGPL|MPL|EUPL|CDDL)", re.IGNORECASE)


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
    kinds = [
        c.rpartition(" :: ")[2]
        for c in m.get_all("Classifier") or ()
        if c.startswith("License :: ")
    ]
    kinds = [k for k in kinds if k != "OSI Approved"]
    if kinds:
        return ", ".join(dict.fromkeys(kinds))
    text = (m.get("License") or "").strip()
    return text if "\n" not in text and len(text) < 60 else text.split("\n", 1)[0].strip()[:60]


def origin(m: PackageMetadata) -> str:
    """Its repository or home page, by its own word."""
    urls = dict(u.split(", ", 1) for u in m.get_all("Project-URL") or () if ", " in u)
    by_kind = {k.lower().replace(" ", "").replace("-", ""): v for k, v in urls.items()}
    kinds = (
        "source",
        "sourcecode",
        "repository",
        "github",
        "code",
        "homepage",
        "home",
        "documentation",
    )
    return next((by_kind[k] for k in kinds if k in by_kind), m.get("Home-page") or "").strip()


def rows_and_faults() -> tuple[str, list[str]]:
    """The file, and what is wrong."""
    text, wrong = io.StringIO(), []
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("package", "version", "licence", "asks when changed", "origin", "asked for by"))
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
        asks = "yes" if COPYLEFT.search(stated) else ""
        rows.writerow(
            (
                name,
                version,
                stated,
                asks,
                origin(m),
                " ".join(b.removesuffix(" (pyproject.toml)") for b in by),
            )
        )
    return text.getvalue(), wrong


def main() -> None:
    text, wrong = rows_and_faults()
    if wrong:
        sys.exit("\n".join(wrong))
    FILE.write_text(text)


if __name__ == "__main__":
    main()
