"""For all tests: the order of files, and the lakes and corpora that rooms share.

To make a lake costs 0.3 s of CPU, a built corpus seconds: most tests share one, made when the first of them asks.
"""

import gc
import itertools
import os
import re
import shutil
import signal
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.util import Finalize
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

import core.wall
import warehouse.lake.lake
from core.paths import Workspace
from tests.kits import servers
from tests.kits.faulty import make_source
from tests.kits.lake_kit import opened
from tests.kits.made_corpus import Made, made_once, shared
from tests.kits.patience import PATIENCE_S
from tests.kits.tiny_lerobot import make_dataset
from tests.kits.walled import forked
from warehouse.lake import Lake
from warehouse.releases.release import Release, create_release, get_release

if TYPE_CHECKING:
    from dagster import DagsterInstance

# Files below tests/: those that wait for servers, while other tests run beside them; then the longest first
LONG = """
faults/test_ray_killed faults/test_kills faults/test_other_faults
stack/test_ui stack/test_ray stack/test_deployment
pipeline/test_partial_failures training/test_attention
browser/test_explorer_pages e2e/test_changed_sources
assets/test_nightly warehouse/lake/test_lost
pipeline/test_release_cycle e2e/test_vlm_build browser/test_day
e2e/test_words_follow_recordings training/test_grpo
pipeline/stages/test_transfer warehouse/releases/test_card
explorer/test_recordings e2e/test_hints
warehouse/exports/test_weights browser/test_explorer_tasks
warehouse/releases/test_places pipeline/stages/test_corrections
warehouse/lake/test_migrations browser/test_explorer_correcting
cli/test_saying browser/test_show_once e2e/test_cli_datasets
e2e/test_cli_build pipeline/test_blocking_checks
training/test_held_out pipeline/test_adaptation
pipeline/test_labels training/test_sharding
pipeline/test_kept_labels e2e/test_cli_reward
warehouse/test_measured browser/test_explorer_episode
assets/defs/corpus/test_assets explorer/test_judging
cli/test_releasing pipeline/stages/test_samples_beyond_a_chunk
explorer/test_pages pipeline/test_corpus test_house
cli/test_reports warehouse/releases/test_publish
pipeline/test_kept_workspaces browser/test_other_sites
training/test_train e2e/test_cli_export cli/test_without
pipeline/stages/test_embeddings training/test_recipe
warehouse/lake/test_look_alikes warehouse/exports/test_other_tools
warehouse/exports/test_samples pipeline/test_imports
ingest/formats/test_bags warehouse/exports/test_videos
warehouse/exports/test_lerobot explorer/test_hostile
assets/lib/test_observed test_imports benchmarks/test_label_truth
e2e/test_cli_references pipeline/test_dry_run
explorer/pages/test_pages explorer/test_media training/test_plan
ingest/test_fuzz training/test_processes
warehouse/releases/test_release warehouse/test_sql_process
eval/server/test_app explorer/test_correcting e2e/test_cli_queries
"""
TESTS = Path(__file__).parent
# What is asked of tests themselves
OF_TESTS = ("PROCCORPUS_BROWSER", "PROCCORPUS_FUZZ", "PROCCORPUS_FUZZ_SEED", "PROCCORPUS_BACKFILL")

# Where tests write: what is written there waits for no disk, and a commit of SQLite on a disk for three times 6 ms.
# A run takes 1 GB; where there is less, as in a small container, tests write where pytest has them do so
MEMORY = Path("/dev/shm")
MEMORY_BYTES = 6 << 30
OURS = "proccorpus-"  # short: a socket below it has a path of at most 107 bytes

numbers = itertools.count()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """What is started in a shell's background may be deaf to these, and so would be all that tests
    start and stop.

    A busy machine makes any single example slow: hypothesis looks at no clock here.
    """
    if config.option.basetemp is None and shutil.disk_usage(MEMORY).free > MEMORY_BYTES:
        _forget_folders_of_ended_runs()
        folder = MEMORY / f"{OURS}{os.getpid()}"
        config.option.basetemp = folder
        os.environ["TMPDIR"] = str(folder.with_suffix(".tmp"))
        os.mkdir(os.environ["TMPDIR"])
        tempfile.tempdir = None
    hypothesis.settings.register_profile("no clock", deadline=None)
    hypothesis.settings.load_profile("no clock")
    gc.set_threshold(100_000)  # as in a command of ours
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _forget_folders_of_ended_runs() -> None:
    for folder in MEMORY.glob(f"{OURS}*"):
        if not Path("/proc", folder.stem.removeprefix(OURS)).exists():
            shutil.rmtree(folder, ignore_errors=True)


def pytest_sessionfinish(exitstatus: int) -> None:
    """What a failed test leaves stays until the next run. Behind what multiprocessing deletes there
    at its end."""
    for folder in MEMORY.glob(f"{OURS}{os.getpid()}*") if exitstatus == 0 else ():
        Finalize(None, shutil.rmtree, (folder, True), exitpriority=-200)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """What has no test of a run is not imported, which costs each of its processes seconds.

    That is a folder whose tests all have a mark of its name, where that mark is left out; a file
    all of whose tests have such a mark; and a file that speaks of no mark, where tests without one
    are left out.
    """
    expression = config.option.markexpr
    is_left_out = f"not {collection_path.name}" in expression
    if is_left_out and collection_path.parent == TESTS:
        return True
    if collection_path.suffix != ".py" or not expression:
        return None
    text = collection_path.read_text()
    of_file = re.search(r"^pytestmark = pytest\.mark\.(\w+)$", text, re.MULTILINE)
    if of_file and f"not {of_file[1]}" in expression:
        return True
    marks = {*re.findall(r"\w+", expression)} - {"and", "or", "not"}
    if collection_path.parent.name in marks or any(f"mark.{mark}" in text for mark in marks):
        return None
    is_without_marks_wanted = eval(expression, {}, defaultdict(bool))
    if is_without_marks_wanted:
        return None
    return True


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that no worker is left alone with one at the end."""
    names = LONG.split()
    rank = {TESTS / f"{name}.py": k for k, name in enumerate(names)}
    items.sort(key=lambda item: rank.get(item.path, len(names)))


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch) -> None:
    """What the shell that runs the tests has set is not what is tested; nor how busy the machine is."""
    monkeypatch.setattr("explorer.access.NEWEST_S", PATIENCE_S)
    for name in [
        n for n in os.environ if n.startswith(("DAGSTER", "PROCCORPUS")) and n not in OF_TESTS
    ]:
        monkeypatch.delenv(name)


@pytest.fixture
def short_pauses(monkeypatch) -> None:
    """A model's server is asked again at once."""
    monkeypatch.setattr("annotate.model_client.client.FIRST_PAUSE_S", 0.002)
    monkeypatch.setattr("annotate.model_client.client.LONGEST_PAUSE_S", 0.02)
    monkeypatch.setattr("annotate.model_client.endpoints.MAX_SHUNNED_S", 0.2)


@pytest.fixture(scope="session", autouse=True)
def _new_lakes_are_copies(tmp_path_factory) -> Iterator[None]:
    """A new lake is a copy of the first one: to make its tables costs half a second of CPU, and
    tests need hundreds."""
    first: list[Workspace] = []
    make_folders = warehouse.lake.lake._make_folders

    def copied(workspace: Workspace) -> None:
        make_folders(workspace)
        if workspace.catalog.exists() or workspace.settings.exists():
            return  # there is one, or it lies elsewhere
        if not first:
            first.append(Workspace(tmp_path_factory.mktemp("first") / "it's a corpus"))
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(warehouse.lake.lake, "_make_folders", make_folders)
                Lake(first[0]).con.close()
        shutil.copytree(first[0].root, workspace.root, dirs_exist_ok=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warehouse.lake.lake, "_make_folders", copied)
        yield


@pytest.fixture(scope="session", autouse=True)
def _walled_processes_are_forked() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(core.wall, "get_context", forked)
        yield


@pytest.fixture(scope="module", autouse=True)
def _old_objects_are_frozen() -> None:
    """The collector looks at no object that was there before a file's tests: a look at all of the
    packages' objects takes a second, and some tests and libraries ask for many."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def lake(tmp_path_factory) -> Lake:
    """For tests that use a dataset of their own, `ds`."""
    return Lake(
        Workspace(tmp_path_factory.mktemp("shared") / "it's a corpus")
    )  # a quote, blanks: paths stand in SQL


@pytest.fixture
def ds() -> str:
    """The name of a dataset that no other test uses."""
    return f"d{next(numbers)}"


@pytest.fixture
def instance() -> Iterator["DagsterInstance"]:
    """A Dagster of the test's own, closed with its folder: left to the collector, it warns while
    another test runs."""
    from dagster import DagsterInstance

    with DagsterInstance.ephemeral() as opened:
        yield opened


@pytest.fixture(scope="session")
def empty_corpus(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("empty") / "corpus"
    Lake(Workspace(root)).con.close()
    return root


@pytest.fixture
def workspace(tmp_path, empty_corpus: Path) -> Workspace:
    """A workspace of the test's own, empty, copied from one that was made once."""
    shutil.copytree(empty_corpus, tmp_path / "corpus")
    return Workspace(tmp_path / "corpus")


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Made:
    """Five episodes in three chunks, in three splits, without a licence, unknown to Dagster; not
    for changing."""
    return shared(tmp_path_factory, "made", make_dataset)


@pytest.fixture
def own(made: Made, tmp_path) -> Made:
    """A copy of it for a test to change."""
    return made.copy(tmp_path)


@pytest.fixture(scope="session")
def made_undivided(tmp_path_factory) -> Made:
    """The same episodes in one chunk, which is made again in a third of the time; not for
    changing."""
    return shared(tmp_path_factory, "undivided", make_dataset, chunk_size=10)


@pytest.fixture
def undivided(made_undivided: Made, tmp_path) -> Made:
    """A copy of it for a test to change."""
    return made_undivided.copy(tmp_path)


@pytest.fixture(scope="session")
def made_released(made: Made, tmp_path_factory) -> Made:
    """The corpus with the release `r1`, whatever its licence; not for changing."""

    def release(folder: Path) -> None:
        space = Workspace(shutil.copytree(made.space.root, folder / "workspace"))
        with opened(space) as lake:
            create_release(lake, "r1", allow=("unknown",))

    place = made_once(tmp_path_factory, "released", release)
    space = shutil.copytree(place / "workspace", tmp_path_factory.mktemp("released") / "workspace")
    return replace(made, space=Workspace(space))


@pytest.fixture
def released(made_released: Made, tmp_path_factory) -> Iterator[tuple[Lake, Release]]:
    """A copy of it for a test to change: its lake and its release."""
    own = made_released.copy(tmp_path_factory.mktemp("released"))
    with opened(own.space) as lake:
        yield lake, get_release(lake, "r1")


@pytest.fixture(scope="session")
def made_faulty(tmp_path_factory) -> Made:
    """The same corpus with a black and a frozen stretch; not for changing."""
    return shared(tmp_path_factory, "faulty", make_source)


@pytest.fixture
def faulty(made_faulty: Made, tmp_path) -> Made:
    """A copy of it for a test to change."""
    return made_faulty.copy(tmp_path)


@pytest.fixture
def corpus(own: Made) -> Iterator[Lake]:
    """The lake of that copy."""
    with opened(own.space) as lake:
        yield lake


@pytest.fixture
def s3(monkeypatch) -> Iterator[Any]:
    """A client of an S3 server on loopback with the bucket `corpora`."""
    import boto3
    from s3fs import S3FileSystem

    with servers.s3() as settings:
        for name, value in (settings | {"AWS_DEFAULT_REGION": "us-east-1"}).items():
            monkeypatch.setenv(name, value)
        yield boto3.client("s3")
    S3FileSystem.clear_instance_cache()  # they know this server, and the next test has another
