"""What Dagster's UI calls fresh, stale or missing, asked of the class that its pages ask."""

from functools import cache

import dagster as dg
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.loader import LoadingContextForTest

from assets.definitions import defs


@cache
def definitions() -> dg.Definitions:
    """All of the project's, put together once: it takes the better part of a second. Not for
    changing."""
    return defs()


def staleness(instance: dg.DagsterInstance) -> dict[tuple[str, str | None], tuple[str, list[str]]]:
    """FRESH, STALE or MISSING of each asset's every partition, and why; of assets without
    partitions by None."""
    graph = definitions().get_repository_def().asset_graph
    resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    statuses = {}
    for key in graph.toposorted_asset_keys:
        partitions = graph.get(key).partitions_def
        if partitions:
            names = partitions.get_partition_keys(dynamic_partitions_store=instance)
        else:
            names = [None]
        for name in names:
            causes = [f"{c.reason}: {c.dependency}" for c in resolver.get_stale_causes(key, name)]
            statuses[key.to_user_string(), name] = (resolver.get_status(key, name).value, causes)
    return statuses


def not_fresh(instance: dg.DagsterInstance) -> dict[tuple[str, str | None], tuple[str, list[str]]]:
    """All that a person would have to look at."""
    return {key: status for key, status in staleness(instance).items() if status[0] != "FRESH"}
