"""Former names of commands: each works, and says the new one."""

import pytest

from cli.former import COMMANDS, present
from tests.kits.cli_kit import look_up


@pytest.mark.parametrize(
    ("former", "new_words"),
    [
        ("quarantine --checks --by reason", "show fault_reasons"),
        ("corrections list --all --dataset a", "show corrections --set dataset=a"),
        ("accept a camera_black --episodes 0 --by me", "say acceptance a camera_black --set episodes=0 --author me"),
        ("recordings same a 4", "say recording --set is_same=true a 4"),
        ("like a 4 --frame=20 --most 5", "show similar a 4 --set frame=20 --limit 5"),
        ("status --json", "status --format json"),
        ("corrections import f --form label-studio", "say correction f --set form=label-studio"),
        ("outcomes import f --dataset a", "say outcome --set file=f --set dataset=a"),
    ],
)  # fmt: skip
def test_former_words_say_the_new_ones(
    former: str, new_words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert present(former.split()) == new_words.split()
    assert capsys.readouterr().err == f"note: this is now `proccorpus {new_words}`\n"
    assert present(new_words.split()) == new_words.split()
    assert capsys.readouterr().err == ""


def test_every_new_name_is_a_command() -> None:
    for words in COMMANDS.values():
        look_up(words.split(), whole=False)
