"""Faults: what is started here is killed, filled up and cut off. `make faults`; options behind it as FAULTS=..."""

import os
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path

import pytest

from tests.kits.cli_kit import without_progress
from tests.kits.fault_kit import Corpus, ModelServer, Tally, Whole, serving_model

HERE = Path(__file__).parent

# A few minutes: what was found to break most
SHORT = {
    "test_killed_at_random_moments", "test_the_plug_is_pulled", "test_two_builds_at_once", "test_a_build",
    "test_the_model_is_killed", "test_postgres_is_killed", "test_a_budget_ends_the_build_cleanly_and_is_kept",
    "test_a_file_that_cannot_be_fetched",
}  # fmt: skip
TALLY = pytest.StashKey[Tally]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults")
    group.addoption("--kills", type=int, default=None, help="of builds; default 40, with --short 6")
    group.addoption(
        "--server-kills", type=int, default=None, help="of each server; default 3, with --short 1"
    )
    group.addoption("--short", action="store_true", help="a few of those that break most")
    group.addoption("--seed", type=int, default=0, help="chooses the moments")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("faults")
    if config.getoption("--short", False):
        deselected = [i for i in items if getattr(i, "originalname", i.name) not in SHORT]
        config.hook.pytest_deselected(items=deselected)
        items[:] = [i for i in items if i not in deselected]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """What a worker of pytest-xdist has counted goes to the process that prints it."""
    worker_output = getattr(session.config, "workeroutput", None)
    tally = session.config.stash.get(TALLY, None)
    if worker_output is not None and tally is not None:
        worker_output["faults"] = {
            "lines": {k: dict(v) for k, v in tally.lines.items()},
            "moments": dict(tally.moments),
        }


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node) -> None:
    fault_output = getattr(node, "workeroutput", {}).get("faults")
    if fault_output:
        tally = node.config.stash.setdefault(TALLY, Tally())
        tally.moments.update(fault_output["moments"])
        for fault, counts in fault_output["lines"].items():
            tally.add(fault, **counts)


@pytest.fixture(scope="session")
def tally(pytestconfig: pytest.Config) -> Tally:
    return pytestconfig.stash.setdefault(TALLY, Tally())


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    tally = config.stash.get(TALLY, None)
    if tally is None or not tally.lines:
        return
    write_line = terminalreporter.write_line
    terminalreporter.section(
        f"faults, seed {config.getoption('--seed')}, load {os.getloadavg()[0]:.1f}"
    )
    columns = ("tried", "recovered", "differences", "repeated")
    write_line(f"{'fault':38}" + "".join(f"{c:>13}" for c in columns))
    for fault, counts in tally.lines.items():
        write_line(f"{fault:38}" + "".join(f"{counts[c]:>13}" for c in columns))
    write_line(
        f"{'all':38}"
        + "".join(f"{sum(map(itemgetter(x), tally.lines.values())):>13}" for x in columns)
    )
    if tally.moments:
        write_line("")
        write_line(
            "moments of kills: "
            + ", ".join(f"{n} {moment_kind}" for moment_kind, n in tally.moments.most_common())
        )


@pytest.fixture(scope="session")
def seed(pytestconfig: pytest.Config) -> int:
    return pytestconfig.getoption("--seed", 0)


@pytest.fixture(scope="session")
def kills(pytestconfig: pytest.Config) -> int:
    return pytestconfig.getoption("--kills") or (6 if pytestconfig.getoption("--short") else 40)


@pytest.fixture(scope="session")
def server_kills(pytestconfig: pytest.Config) -> int:
    return pytestconfig.getoption("--server-kills") or (
        1 if pytestconfig.getoption("--short") else 3
    )


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Iterator[ModelServer]:
    with serving_model(tmp_path_factory.mktemp("model"), "--latency", "0.03") as server:
        yield server


@pytest.fixture(scope="session")
def corpus(model: ModelServer, tmp_path_factory) -> Corpus:
    return Corpus.make(tmp_path_factory.mktemp("corpus"), model.url)


@pytest.fixture(scope="session")
def reference(corpus: Corpus, tmp_path_factory) -> Path:
    """The workspace of an uninterrupted build by one worker; not for changing."""
    workspace = tmp_path_factory.mktemp("reference") / "workspace"
    process = corpus.build(workspace, workers=1)
    assert (process.returncode, without_progress(process.stderr)) == (0, "")
    return workspace


@pytest.fixture(scope="session")
def whole(reference: Path) -> Whole:
    return Whole.of(reference)
