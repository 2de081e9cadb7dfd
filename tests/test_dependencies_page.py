"""docs/dependencies.md is what docs/make_dependencies.py makes of the pins and of what is installed."""

from make_dependencies import PAGE, page

from core.paths import ROOT


def test_the_page_is_up_to_date_and_every_package_states_a_licence():
    text, wrong = page()
    assert wrong == []
    assert PAGE.read_text() == text, "run python docs/make_dependencies.py"


def test_what_is_pinned_is_a_release():
    """No package comes from a repository or a path: only from an index, in one version."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    assert len(pins) > 100
    assert [line for line in pins if "==" not in line or " @ " in line or "+" in line.split("==")[1]] == []
