"""What a message says where a package is missing: extras that we have, and that `make setup` installs."""

import re
import tomllib

from core.errors import install_hint
from core.paths import ROOT
from tests.kits.code import FILES


def test_a_hint_names_an_extra_that_make_setup_installs():
    named = {x for path in FILES for x in re.findall(r"install_hint\(['\"](\w+)['\"]\)", path.read_text())}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {"train", "exports", "cloud"} <= named <= set(extras)
    set_up = set(re.findall(r"--extra (\w+)", (ROOT / "Makefile").read_text()))
    assert named <= set_up
    assert "pip install -e '.[train]'" in install_hint("train")
    in_quotes = [path.name for path in FILES if re.search(r"install '?proccorpus", path.read_text())]
    assert in_quotes == []  # it is on no index
