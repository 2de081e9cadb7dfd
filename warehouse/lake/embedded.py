"""How much of a lake an encoder has looked at. (`embeddings` reads what it saw, and needs numpy.)"""

from warehouse.lake.connection import LakeConnection


def embedded_pictures(lake: LakeConnection) -> dict[str, str]:
    """By dataset how many pictures an encoder has looked at, in words."""
    rows = lake.rows(
        "SELECT dataset, string_agg(count || ' pictures by ' || encoder, ', ' ORDER BY count DESC, encoder) FROM "
        "(SELECT dataset, encoder, count(*) AS count FROM embeddings GROUP BY ALL) GROUP BY dataset"
    )
    return dict(rows)
