"""For all tests."""

import signal

import pytest

LONG = (
    "test_ray_killed", "test_kills", "test_other_faults", "test_ui", "test_deployment",
    "test_fuzz_tables", "test_fuzz", "test_vlm_build", "test_cli_rebuild", "test_cli_build",
)  # fmt: skip


def pytest_configure() -> None:
    """What is started in a shell's background may be deaf to these, and so would be all that tests start and stop."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that no worker is left alone with one at the end."""
    rank = {name: k for k, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(LONG)))
