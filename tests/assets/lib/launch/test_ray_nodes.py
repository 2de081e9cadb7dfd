"""What runs on each machine of a Ray job of several, without Ray: two torchruns find one another and are one group."""

import sys

from assets.lib.launch.ray_nodes import run_node


def test_a_machine_gives_its_lines_and_its_code() -> None:
    script = "import sys; print('one'); print('two', file=sys.stderr); sys.exit(3)"
    assert list(run_node([sys.executable, "-uc", script])) == ["one\n", "two\n", 3]
