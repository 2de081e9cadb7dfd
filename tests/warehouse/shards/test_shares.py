"""Rates that give shares: sums of rows and columns of a table are met; shares that contradict it are refused."""

import numpy as np
import pytest

from warehouse.shards import ShardError
from warehouse.shards.shares import fitted_rates


def test_shares_that_no_rates_give_are_refused() -> None:
    with pytest.raises(ShardError, match="some datasets lack a family"):
        fitted_rates(np.array([[10.0, 0], [0, 10]]), np.array([0.9, 0.1]), np.array([0.5, 0.5]), 1e-6)
