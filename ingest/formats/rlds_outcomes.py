"""What a record of an RLDS dataset says of its outcome: flags, texts that are paths, the reward, how it ended."""

from collections.abc import Sequence

from ingest.formats.rlds_steps import Steps, scalar, values_of
from ingest.outcomes import Ending, Evidence, Flag, Outcome, Reward, fields_of, folder_outcome, row_values, truth

PATHS = ("episode_metadata/file_path", "episode_metadata/recording_folderpath")  # DROID's lie in success or failure
REWARD, TERMINAL = "reward", "is_terminal"


def evidence_of(steps: Steps, num_rows: int, registered: Sequence[str], success_field: str) -> Evidence:
    """What an episode of `num_rows` steps shows. Where the registry says what to look at (`registered`), nothing else
    is. Raises TFRecordError.
    """
    stated = _stated(steps, registered or (success_field,))
    if registered:
        return Evidence(stated)
    # What is beside the steps is stated once; what is in them is a flag of each
    names = fields_of(success_field)[1:]
    in_steps = [name for name in names if _is_of_steps(steps, name)]
    flags = tuple(filter(None, (_flag(steps, name) for name in in_steps)))
    stated = stated or _stated(steps, [name for name in names if name not in in_steps])
    return Evidence(stated, flags, folder_outcome(*_paths(steps)), _reward(steps, num_rows), _ending(steps, num_rows))


def _paths(steps: Steps) -> list[str]:
    return [path for path in (scalar(steps, name) for name in PATHS) if isinstance(path, str)]


def _is_of_steps(steps: Steps, name: str) -> bool:
    key = steps.key(name)
    return key is not None and key.startswith("steps/")


def _flag(steps: Steps, name: str) -> Flag | None:
    return row_values(values_of(steps, name)).flag(name)


def _stated(steps: Steps, names: Sequence[str]) -> Outcome | None:
    """By the first feature that tells: a flag of the steps, a value, or a path whose folders tell."""
    for name in names:
        if _is_of_steps(steps, name) and (flag := _flag(steps, name)):
            return Outcome(flag.at_end, f"column {name}")
        value = scalar(steps, name)
        success = truth(value)
        if success is not None:
            return Outcome(success, f"metadata {name}")
        if isinstance(value, str) and (outcome := folder_outcome(value)):
            return outcome
    return None


def _reward(steps: Steps, num_rows: int) -> Reward | None:
    """RLDS gives an action's reward in its own step, and that of the last step has no meaning; Open X-Embodiment gives
    it there all the same.
    """
    values = values_of(steps, REWARD)
    # Several per step are parts of a reward, of which none is the whole
    if len(values) != num_rows:
        return None
    if values[-2:].tolist() == [1, 0]:
        values = values[:-1]
    return row_values(values).reward(REWARD)


def _ending(steps: Steps, num_rows: int) -> Ending | None:
    values = values_of(steps, TERMINAL)
    return Ending(TERMINAL, bool(values[-1] == 1)) if num_rows and len(values) == num_rows else None
