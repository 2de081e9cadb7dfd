"""The way of a workspace through a build: how often a reader who follows it goes back to a file that was left.

The numbers are what was reached; each may only fall. `python -m tests.kits.walk` prints the way.
"""

from pathlib import Path

from tests.kits.walk import walk

FILES = 20
# 40 without those to what Dagster is told, which were not found before the module was given by name
RETURNS = 51


def test_the_way_of_a_build_is_short():
    way = walk("cli/console.py", "build_all")
    assert (way.files <= FILES, way.returns <= RETURNS) == (True, True), way.stays


def test_a_way_is_counted_by_what_is_passed_on(tmp_path: Path):
    """Two files: the first calls the second twice with the workspace, and once without it."""
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "paths.py").write_text("class Workspace:\n    pass\n")
    (tmp_path / "cli").mkdir()
    (tmp_path / "cli" / "main.py").write_text(
        "from cli.room import Room, look\n"
        "from core.paths import Workspace\n\n\n"
        "def start(space: Workspace, number: int):\n"
        "    look(number)\n"
        "    look(space)\n"
        "    room = Room(space)\n"
        "    for step in (room.enter,):\n"
        "        step()\n"
    )
    (tmp_path / "cli" / "room.py").write_text(
        "from core.paths import Workspace\n\n\n"
        "def look(thing):\n"
        "    pass\n\n\n"
        "class Room:\n"
        "    def __init__(self, space: Workspace):\n"
        "        self.space = space\n\n"
        "    def enter(self):\n"
        "        look(self.space)\n"
    )
    way = walk("cli/main.py", "start", tmp_path)
    assert [name for _, name in way.stays] == [
        "start",
        "look",
        "start",
        "__init__",
        "start",
        "enter",
        "start",
    ]
    assert (way.calls, way.files, way.returns) == (4, 2, 5)
