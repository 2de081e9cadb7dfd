"""Tests here start from no settings of the shell."""

import pytest


@pytest.fixture(autouse=True)
def _no_settings(no_settings: None) -> None: ...
