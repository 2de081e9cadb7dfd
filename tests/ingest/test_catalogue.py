"""The registry for people."""

from ingest.catalogue import facts, readable
from ingest.registry import DatasetConfig, Gripper


def shown(gripper: Gripper | tuple[Gripper, ...] | None) -> str | None:
    """What is said of an entry's grippers."""
    lines = readable(facts(DatasetConfig(name="a", source="b", gripper=gripper), None))
    return {line["field"]: line["value"] for line in lines}.get("gripper")


def test_one_gripper_or_none() -> None:
    assert shown(Gripper(dimension=6)) == "state[6]"
    assert shown(Gripper(column="none")) == "none"
    assert shown(None) is None
