"""The register of formats."""

import re
from itertools import chain

import pytest

from core.paths import ROOT
from ingest.formats import FORMATS, Format
from ingest.source import adapter_of


@pytest.mark.parametrize("format_", FORMATS)
def test_a_format_is_registered_in_one_place_only(format_: Format) -> None:
    """The name of its module stands in no other module's text, and the module has what an adapter has."""
    adapter = adapter_of(format_)
    assert all(callable(getattr(adapter, f)) for f in ("roots", "list_episodes", "read_episode"))
    code = list(
        chain.from_iterable(
            (ROOT / room).rglob("*.py")
            for room in ("core", "ingest", "warehouse", "pipeline", "assets", "cli")
        )
    )
    assert len(code) > 100
    naming = [p for p in code if f'"{format_.adapter}"' in p.read_text()]
    assert naming == [ROOT / "ingest/formats/__init__.py"]
    quoted = {f'"{format_.name}"' for format_ in FORMATS}
    listing = [p for p in code if quoted <= set(re.findall(r'"\w+"', p.read_text()))]
    assert listing == [ROOT / "ingest/formats/__init__.py"]
