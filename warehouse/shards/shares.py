"""Rates of the loader that give datasets and families of samples chosen shares of an epoch."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from warehouse.shards.loader import FINEST, LoaderConfig
from warehouse.shards.shard import ShardError, read_index

MAX_ROUNDS = 10_000  # of fitting: shares that can be met are met in a few dozen


@dataclass(frozen=True)
class SampleCounts:
    """Samples that an epoch gives at rate 1 of each dataset and family: `counts` [datasets, families]."""

    datasets: list[str]
    families: list[str]
    counts: np.ndarray


def with_shares(
    shards: Sequence[Path],
    config: LoaderConfig,
    *,
    datasets: Mapping[str, float] | None = None,
    families: Mapping[str, float] | None = None,
    tolerance: float = 1e-6,
) -> LoaderConfig:
    """`config` with rates that give datasets, families or both these shares of an epoch.

    An epoch gives as many samples in all as at rate 1. Shares are taken relative to their sum; 0 leaves out. Reads
    every index. Raises ShardError, also where no rates give both.

    Example: of 300 samples of `sim` and 100 of `real`, datasets={"sim": 1, "real": 1} gives the rates 2/3 and 2.
    """
    # Counts are taken at rate 1: rates of before would be fitted twice
    config = replace(config, dataset_rates={}, family_rates={})
    there = _count(shards, config, families)
    # A share of None is no wish: the rates of that axis stay 1
    dataset_rates, family_rates = fitted_rates(
        there.counts,
        _targets(there.datasets, datasets, "dataset"),
        _targets(there.families, families, "family"),
        tolerance,
    )
    left_out = {family: 0.0 for family, share in (families or {}).items() if not share}
    by_dataset = dict(zip(there.datasets, dataset_rates.tolist(), strict=True))
    by_family = dict(zip(there.families, family_rates.tolist(), strict=True)) | left_out
    return replace(
        config,
        dataset_rates=by_dataset if datasets is not None else {},
        family_rates=by_family if families is not None else {},
    )


def fitted_rates(
    counts: np.ndarray, row_shares: np.ndarray | None, column_shares: np.ndarray | None, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Rates r of rows and c of columns so that the table counts * r * c has the same sum, divided by the shares.

    Shares add up to 1; None: any, and the rates of that axis are 1. Iterative proportional fitting (Deming and Stephan,
    1940): rows and columns are scaled to their shares in turn, until both are met to within `tolerance`. Raises
    ShardError where they never are.

    Example: fitted_rates(np.array([[300.0], [100.0]]), np.array([0.5, 0.5]), None, 1e-6) == ([2 / 3, 2], [1])
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
            rates[axis] = rates[axis] * np.divide(shares * total, sums, out=np.zeros_like(sums), where=sums > 0)
        # Rates beyond what the loader can tell apart grow for ever: the shares contradict each other
        if off < tolerance or max(r.max() for r in rates) > FINEST:
            break
    if off >= tolerance:
        raise ShardError("no rates give these shares to datasets and families at once: some datasets lack a family")
    return rates[0], rates[1]


def _count(shards: Sequence[Path], config: LoaderConfig, shares: Mapping[str, float] | None) -> SampleCounts:
    """`shares`: those of the families. Raises ShardError for a family that has none."""
    counts: defaultdict[tuple[str, str], float] = defaultdict(float)
    for index in map(read_index, shards):
        for entry in index.entries:
            families = _given_families(entry.family, index.dataset, config, shares)
            part = _part_given(len(families), config.per_visit)
            for family in families:
                counts[index.dataset, family] += part
    return _as_table(counts)


def _part_given(num_samples: int, per_visit: int | None) -> float:
    """The part of an episode's samples that an epoch gives: with `per_visit`, only so many of them."""
    return min(1.0, (per_visit or num_samples) / max(num_samples, 1))


def _as_table(counts: Mapping[tuple[str, str], float]) -> SampleCounts:
    """Counts by dataset and family as a table of all datasets and all families."""
    datasets = sorted({dataset for dataset, _ in counts})
    families = sorted({family for _, family in counts})
    table = np.zeros((len(datasets), len(families)))
    for (dataset, family), count in counts.items():
        table[datasets.index(dataset), families.index(family)] = count
    return SampleCounts(datasets, families, table)


def _given_families(
    samples: Sequence[str], dataset: str, config: LoaderConfig, shares: Mapping[str, float] | None
) -> list[str]:
    """The family of each sample of an episode that an epoch may give."""
    given = [family for family in samples if config.rate(dataset, family)]
    if shares is None:
        return given
    if unknown := set(given) - shares.keys():
        raise ShardError(f"no share is given to the family {min(unknown)}; 0 leaves it out")
    return [family for family in given if shares[family]]


def _targets(names: list[str], shares: Mapping[str, float] | None, kind: str) -> np.ndarray | None:
    """Shares of some names relative to their sum. Raises ShardError."""
    if shares is None:
        return None
    _check_names(names, shares, kind)
    given = np.array([shares[name] for name in names], float)
    if not (np.isfinite(given).all() and (given >= 0).all() and given.sum() > 0):
        raise ShardError(f"shares of a {kind} are numbers from 0 on, not all 0")
    return given / given.sum()


def _check_names(names: list[str], shares: Mapping[str, float], kind: str) -> None:
    """Raise ShardError unless all that have samples have a share, and all that have a share above 0 have samples."""
    missing = set(names) - shares.keys()
    if missing:
        raise ShardError(f"no share is given to the {kind} {min(missing)}; 0 leaves it out")
    absent = {name for name, share in shares.items() if share} - set(names)
    if absent:
        raise ShardError(f"a share is given to the {kind} {min(absent)}, of which there is no sample")
