"""Names of commands and options that earlier versions had: they work for one version, and say the new one."""

import shlex
from collections.abc import Iterator, Sequence

from cli.options import note
from core.errors import without_secrets

# Words of a command line (a command, with an option that tells it apart), and what stands for them now. The longest
# that fits counts; one that ends with = takes the next word
COMMANDS: dict[str, str] = {
    "accept": "say acceptance",
    "corrections export": "show correction_lines",
    "corrections export --form": "show label_studio",
    "corrections import": "say correction",
    "corrections list": "show current_corrections",
    "corrections list --all": "show corrections",
    "corrections undo": "undo",
    "demonstrations": "show demonstrations",
    "digest": "show digest",
    "dry-run": "build --dry-run",
    "like": "show similar",
    "model calibrate": "model check --calibrate",
    "model list": "show models",
    "outcomes": "show outcome_shares",
    "outcomes import": "say outcome --set file=",
    "outcomes list": "show current_outcomes",
    "outcomes list --all": "show outcomes",
    "outcomes undo": "undo",
    "quarantine": "show quarantine",
    "quarantine --by": "show quarantine_reasons",
    "quarantine --checks": "show faults",
    "quarantine --checks --by": "show fault_reasons",
    "recordings changes": "show recording_changes",
    "recordings list": "show recordings",
    "recordings other": "say recording --set is_same=false",
    "recordings review": "show words_in_review",
    "recordings same": "say recording --set is_same=true",
    "references add": "say reference",
    "references join": "say joined_task",
    "references list": "show current_references",
    "references part": "say joined_task",
    "references remove": "say reference --set is_reference=false",
    "references suggest": "show suggestions",
    "release list": "show releases",
    "schema": "show schema",
    "shards verify": "show shard_faults",
}
# Settings of exports that were options of their own; the last ones had no value
EXPORT_SETTINGS = (
    "family",
    "form",
    "profile",
    "seed",
    "per_run",
    "pictures_per_s",
    "max_px",
    "flavour",
    "codec",
    "blur",
    "fps",
    "kind",
    "chunk_size",
    "without_stretches",
    "window_frames",
    "window_step",
    "endpoint",
    "api_key_env",
    "max_calls",
    "from_model",
    "advantage",
    "positive_share",
)
EXPORT_FLAGS = ("only_complete", "plain", "in_dataset")
# Of commands that begin so ("": of all), by option what stands for it now; {}: its value. None: it goes, with its value
OPTIONS: dict[str, dict[str, str | None]] = {
    "accept": {
        "--why": "--comment {}",
        "--by": "--author {}",
        "--undo": "--set is_accepted=false",
        "--episodes": "--set episodes={}",
    },
    "corrections": {
        "--all": "",
        "--form": "--set form={}",
        "--dataset": "--set dataset={}",
        "--episodes": "--set episodes={}",
    },
    "corrections export": {"--form": None},
    "export": {
        **{f"--{name.replace('_', '-')}": f"--set {name}={{}}" for name in EXPORT_SETTINGS},
        **{f"--{name.replace('_', '-')}": f"--set {name}=true" for name in EXPORT_FLAGS},
    },
    "like": {
        "--frame": "--set frame={}",
        "--camera": "--set camera={}",
        "--dataset": "--set among={}",
        "--most": "--limit {}",
    },
    "outcomes": {"--all": "", "--dataset": "--set dataset={}"},
    "quarantine": {"--by": None, "--checks": ""},
    "references": {
        "--dataset": "--set dataset={}",
        "--label-run": "--set label_run={}",
        "--task": "--set task={}",
    },
    "shards verify": {"--release": "--set release={}"},
    "": {"--json": "--format json", "--records": "--format records", "-x": "--format records"},
}


def present(words: Sequence[str]) -> list[str]:
    """The words of a command line, in the names of this version; says the new line where it is
    another."""
    # Options of all commands were given before a command's name, too: now each command has its own
    words = sorted(words, key=OPTIONS[""].__contains__)
    line = " ".join(words)
    options = dict[str, str | None]()
    for command in sorted(OPTIONS, key=len):
        if f"{line} ".startswith(f"{command} ") or not command:
            options |= OPTIONS[command]
    remaining_words = [*words]
    new_words: list[str] = []
    former = max(filter(lambda name: _fits(name, words), COMMANDS), key=len, default=None)
    if former is not None:
        new_words = COMMANDS[former].split()
        remaining_words = remaining_words[len(_plain(former)) :]
        if new_words[-1].endswith("=") and remaining_words:
            new_words[-1] += remaining_words.pop(0)
    new_words += _renamed(iter(remaining_words), options)
    if new_words != words:
        note(without_secrets(f"note: this is now `proccorpus {shlex.join(new_words)}`"))
    return new_words


def _plain(name: str) -> list[str]:
    return [word for word in name.split() if not word.startswith("--")]


def _fits(name: str, words: Sequence[str]) -> bool:
    plain = _plain(name)
    names_given = {word.partition("=")[0] for word in words}
    return list(words[: len(plain)]) == plain and names_given.issuperset(name.split())


def _renamed(
    words: Iterator[str],
    options: dict[str, str | None],
) -> Iterator[str]:
    for word in words:
        name, has_value, value = word.partition("=")
        if not name.startswith("-") or name not in options:
            yield word
            continue
        template = options[name]
        if template is None or "{}" in template:
            value = value if has_value else next(words, "")
        yield from (part.replace("{}", value) for part in (template or "").split())
