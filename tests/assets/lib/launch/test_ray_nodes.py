"""What runs on each machine of a Ray job of several, without Ray: two torchruns find one another and are one group."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from assets.lib.launch.job import torchrun
from assets.lib.launch.ray_nodes import run_node
from tests.kits.launch_kit import group_interpreter
from tests.kits.servers import free_port


def test_two_machines_are_one_group(tmp_path: Path) -> None:
    python, at = group_interpreter(tmp_path), f"127.0.0.1:{free_port()}"
    commands = [
        torchrun(python, ["train", "--recipe", "together"], 1, 2, at, "n-1", first=first) for first in (True, False)
    ]
    with ThreadPoolExecutor(2) as machines:
        said = [list(lines) for lines in machines.map(lambda command: list(run_node(command)), commands)]
    assert [lines[-1] for lines in said] == [0, 0]
    words = sorted(str(line) for lines in said for line in lines if "of 2 met at" in str(line))
    assert [w.split(" met")[0] for w in words] == ["rank 0 of 2", "rank 1 of 2"]


def test_a_machine_gives_its_lines_and_its_code() -> None:
    script = "import sys; print('one'); print('two', file=sys.stderr); sys.exit(3)"
    assert list(run_node([sys.executable, "-uc", script])) == ["one\n", "two\n", 3]
