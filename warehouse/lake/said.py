"""Of which datasets people said anything: a quick look, before what joins all that they said."""

from collections.abc import Mapping

from warehouse.lake.connection import LakeConnection

WORDS = ("corrections", "reference_marks", "outcomes")  # tables of what people say; rows are only ever added to them


def said_of(lake: LakeConnection) -> Mapping[str, frozenset[str]]:
    """By table of people's words the datasets that it has rows of."""

    def look() -> dict[str, frozenset[str]]:
        rows = lake.rows(" UNION ALL ".join(f"SELECT DISTINCT '{table}', dataset FROM {table}" for table in WORDS))
        return {table: frozenset(dataset for name, dataset in rows if name == table) for table in WORDS}

    return lake.once("said", look)
