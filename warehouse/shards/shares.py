"""Rates of the loader that give datasets and families of samples chosen shares of an epoch."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np

from warehouse.shards.loader import FINEST, LoaderConfig
from warehouse.shards.shard import ShardError, read_index

MAX_ROUNDS = 10_000  # of fitting: shares that can be met are met in a few dozen
TOLERANCE = 1e-6  # of a share


def with_shares(
    shards: Sequence[Path],
    config: LoaderConfig,
    *,
    datasets: Mapping[str, float] | None = None,
    families: Mapping[str, float] | None = None,
) -> LoaderConfig:
    """`config` with rates that give datasets, families or both these shares of an epoch.

    An epoch gives as many samples in all as at rate 1. Shares are taken relative to their sum; 0 leaves out. Reads
    every index. Raises ShardError, also where no rates give both.

    Example: of 300 samples of `sim` and 100 of `real`, datasets={"sim": 1, "real": 1} gives the rates 2/3 and 2.
    """
    # Counts are taken at rate 1: rates of before would be fitted twice
    config = replace(config, dataset_rates={}, family_rates={})
    counts = _counts(shards, config, families)
    rows, columns = (sorted(set(names)) for names in zip(*counts, strict=True))
    cells = [counts.get(key, 0.0) for key in product(rows, columns)]
    table = np.array(cells).reshape(len(rows), len(columns))
    # Shares of None are no wish: the rates of that axis stay 1
    targets = _targets(rows, datasets, "dataset"), _targets(columns, families, "family")
    of_rows, of_columns = (rates.tolist() for rates in fitted_rates(table, *targets))
    zero_rates = {family: 0.0 for family, share in (families or {}).items() if not share}
    return replace(
        config,
        dataset_rates={} if datasets is None else dict(zip(rows, of_rows, strict=True)),
        family_rates={}
        if families is None
        else dict(zip(columns, of_columns, strict=True)) | zero_rates,
    )


def fitted_rates(
    counts: np.ndarray, row_shares: np.ndarray | None, column_shares: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Rates r of rows and c of columns so that the table counts * r * c has the same sum, divided by the shares.

    Shares add up to 1; None: any, and the rates of that axis are 1. Iterative proportional fitting (Deming and Stephan,
    1940): rows and columns are scaled to their shares in turn, until both are met to within TOLERANCE. Raises
    ShardError where they never are.

    Example: fitted_rates(np.array([[300.0], [100.0]]), np.array([0.5, 0.5]), None) == ([2 / 3, 2], [1])
    """
    total = counts.sum()
    rates = [np.ones(length) for length in counts.shape]
    for _ in range(MAX_ROUNDS):
        off = 0.0
        for axis, shares in enumerate((row_shares, column_shares)):
            if shares is None:
                continue
            # Each axis is measured with the rates of the other one as they stand in this round
            sums = (counts * rates[0][:, None] * rates[1]).sum(axis=1 - axis)
            off = max(off, float(abs(sums / total - shares).max()))
            rates[axis] = rates[axis] * np.divide(
                shares * total, sums, out=np.zeros_like(sums), where=sums > 0
            )
        # Rates beyond what the loader can tell apart grow for ever: the shares contradict each other
        if off < TOLERANCE or max(r.max() for r in rates) > FINEST:
            break
    if off >= TOLERANCE:
        raise ShardError(
            "no rates give these shares to datasets and families at once: some datasets lack a family"
        )
    return rates[0], rates[1]


def _counts(
    shards: Sequence[Path], config: LoaderConfig, shares: Mapping[str, float] | None
) -> Counter[tuple[str, str]]:
    """Samples that an epoch gives at rate 1 of each dataset and family that has a share, `shares` those of the
    families. Raises ShardError for a family without."""
    counts = Counter[tuple[str, str]]()
    for index in map(read_index, shards):
        for entry in index.entries:
            usable_families = [
                family for family in entry.family if config.rate(index.dataset, family)
            ]
            if shares is not None:
                _check_have_shares(usable_families, shares, "family")
                usable_families = [family for family in usable_families if shares[family]]
            # With `per_visit` an epoch gives only so many of an episode's samples
            part = min(
                1.0, (config.per_visit or len(usable_families)) / max(len(usable_families), 1)
            )
            for family in usable_families:
                counts[index.dataset, family] += part  # type: ignore[assignment]  # parts of samples
    return counts


def _check_have_shares(names: Iterable[str], shares: Mapping[str, float], kind: str) -> None:
    if missing := set(names) - shares.keys():
        raise ShardError(f"no share is given to the {kind} {min(missing)}; 0 leaves it out")


def _targets(names: list[str], shares: Mapping[str, float] | None, kind: str) -> np.ndarray | None:
    """Shares of some names relative to their sum. Raises ShardError."""
    if shares is None:
        return None
    _check_have_shares(names, shares, kind)
    if absent := {name for name, share in shares.items() if share} - set(names):
        raise ShardError(
            f"a share is given to the {kind} {min(absent)}, of which there is no sample"
        )
    share_values = np.array([shares[name] for name in names], float)
    if not (
        np.isfinite(share_values).all() and (share_values >= 0).all() and share_values.sum() > 0
    ):
        raise ShardError(f"shares of a {kind} are numbers from 0 on, not all 0")
    return share_values / share_values.sum()
