"""Former names of commands: each works, and says the new one."""

import pytest
import yaml

from cli.former import COMMANDS, present
from core.paths import ROOT
from tests.kits.cli_kit import look_up

FORMER = yaml.safe_load((ROOT / "tests/data/former_words.yaml").read_text())


@pytest.mark.parametrize(("former", "new_words"), [*FORMER])
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
