"""Rates that give shares: sums of rows and columns of a table are met; shares that contradict it are refused."""

import numpy as np
import pytest

from warehouse.shards import ShardError
from warehouse.shards.shares import fitted_rates


def test_one_axis_is_met_at_once() -> None:
    datasets, families = fitted_rates(np.array([[300.0], [100.0]]), np.array([0.5, 0.5]), None, 1e-6)
    np.testing.assert_allclose(datasets, [2 / 3, 2])
    assert families.tolist() == [1]


def test_both_axes_are_met_together() -> None:
    counts, rows, columns = np.array([[30.0, 10], [5, 55]]), np.array([0.7, 0.3]), np.array([0.4, 0.6])
    datasets, families = fitted_rates(counts, rows, columns, 1e-9)
    table = counts * datasets[:, None] * families
    np.testing.assert_allclose(table.sum(axis=1), rows * 100)
    np.testing.assert_allclose(table.sum(axis=0), columns * 100)


def test_shares_that_no_rates_give_are_refused() -> None:
    with pytest.raises(ShardError, match="some datasets lack a family"):
        fitted_rates(np.array([[10.0, 0], [0, 10]]), np.array([0.9, 0.1]), np.array([0.5, 0.5]), 1e-6)
