"""A plugin of pytest for `make quick`: files that take long come last, and when the time is over
tests are skipped.

What was skipped is counted in pytest's last line, so nobody takes half of the tests for all of
them.
"""

import os
import time

import pytest

LIMIT_S = float(
    os.environ["PROCCORPUS_TESTS_WITHIN_S"]
)  # from the first test on; no other test starts later
first_test_at: list[float] = []


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    from tests.conftest import (
        LONG,
        TESTS,
    )  # loaded by now; at the top it would be before pytest looks at it

    items.sort(key=lambda item: item.path.relative_to(TESTS).as_posix() in LONG)


def pytest_runtest_setup() -> None:
    first_test_at.append(time.monotonic())
    if time.monotonic() - first_test_at[0] >= LIMIT_S:
        pytest.skip(f"not within {LIMIT_S:g} s; make test runs it")
    del first_test_at[1:]
