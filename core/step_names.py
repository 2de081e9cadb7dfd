"""Names of steps, and what stands in their place where nothing says what a step is."""

import re

# What motion and a person's editor put where nobody has given a name; earlier versions numbered parts of a movement
PLACEHOLDER = r"New step|(?:Unnamed step|Move, part) \d+(?:, part \d+)*"


def unnamed_step(step: int) -> str:
    """What stands for the name of planned step `step`, from 0.

    Example: unnamed_step(1) is "Unnamed step 2".
    """
    return f"Unnamed step {step + 1}"


def is_name(name: str) -> bool:
    """Does it say what the step is, or does it only stand where a name would?"""
    return re.fullmatch(PLACEHOLDER, name) is None
