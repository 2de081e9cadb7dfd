"""The datasets that a source holds, each as a build of its own: of `--source`, and of a registry entry's folders."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextvars import copy_context
from fnmatch import fnmatchcase
from pathlib import Path

from core.errors import UserError
from core.paths import Workspace
from ingest.formats.listing import named
from ingest.registry import UNNAMED, DatasetConfig, Published, name_of
from ingest.source import DatasetPlace, Places, check_places, places_of
from ingest.sources.types import SourceError, address_below, last_name
from pipeline.config import DatasetBuild, commit_read, last_builds, source_build, stored_build
from warehouse.lake import WHOLE_DATASET, Lake
from warehouse.lake.references import stored_builds
from warehouse.lake.renaming import holdings

OUT_OF_REACH = (
    SourceError,
    OSError,
)  # of a source that is missing, no dataset, not to be read, or slow
SLOW_S = 300.0  # until a source has to have shown what it holds
LISTED = """
SELECT dataset, config->>'$.dataset.source', config->>'$.dataset.format', inputs->>'source'
FROM stage_runs JOIN build_configs USING (dataset) WHERE stage = 'episodes' AND chunk = ?"""


def builds_of_source(
    workspace: Workspace,
    lake: Lake | None,
    source: str,
    *,
    name: str | None = None,
    format: str | None = None,
    episodes: tuple[int, ...] | None = None,
    revision: str | None = None,
    update: bool = False,
    same: bool = False,
) -> tuple[tuple[DatasetBuild, ...], list[str]]:
    """A build of the dataset that a folder, file or address is, or of each that it holds, under its folder's name; and
    what a person should know of what was left out.

    `name`: what the one dataset is called; of several it is put before their names. `lake`: None without a workspace.
    `same`: a dataset of the workspace that has the name may be replaced. Raises UserError and SourceError.
    """
    whole = source_build(
        source, name or name_of(last_name(source)) or UNNAMED, format, episodes, revision
    )
    [listed] = listed_fingerprints(lake, [whole.dataset])
    if listed and whole.source(workspace.sources).fingerprint() == listed:
        return (whole,), []
    whole, places = _looked_at(workspace, lake, whole, update)
    address = whole.dataset.source
    # Datasets but for videos that nothing describes, where there is better
    chosen_places = [place for place in places.datasets if not place.is_bare] or list(
        places.datasets
    )
    # One is called as was said, several by their folders, behind what was said
    prefix = f"{name}-" if name else ""
    if name and len(chosen_places) == 1:
        names = [name]
    else:
        names = [prefix + own_name for own_name in _own_names(whole, chosen_places)]
    if len(names) > 1:
        notes = [f"{address} holds {len(names)} datasets: {', '.join(names)}"]
    else:
        notes = []
    notes += _left_out(address, places, chosen_places)
    builds = tuple(
        _part(whole, place, part_name)
        for place, part_name in zip(chosen_places, names, strict=True)
    )
    _check_names(builds)
    if lake is not None and not same:
        for build in builds:
            _check_is_same(lake, build)
    return builds, notes


def listed_fingerprints(lake: Lake | None, configs: Sequence[DatasetConfig]) -> list[str | None]:
    """Of each folder or file that was listed at its place and as its format: what it was then, file by file; else None.
    One that is so still has the format that it had.
    """
    rows = lake.once("listed", lambda: lake.rows(LISTED, [WHOLE_DATASET])) if lake else []
    listed = {tuple(place): fingerprint for *place, fingerprint in rows}
    return [None if c.is_remote else listed.get((c.name, c.source, c.format)) for c in configs]


def _left_out(address: str, places: Places, chosen_places: Sequence[DatasetPlace]) -> Iterator[str]:
    bare = [place.folder for place in places.datasets if place not in chosen_places]
    if bare:
        alone = f"--source {address_below(address, bare[0])} builds {'it' if len(bare) == 1 else 'the first'}"
        yield f"left out: videos that nothing describes ({named(bare)}); {alone}"
    if places.beside:
        yield f"left out: {len(places.beside)} files beside the datasets' folders ({named(places.beside)})"


def with_folders(
    workspace: Workspace, lake: Lake | None, builds: Sequence[DatasetBuild], *, update: bool = False
) -> tuple[DatasetBuild, ...]:
    """Builds of which those that name folders are one for each of these. Raises UserError, SourceError.

    Of several one whose source is out of reach stays as it is: to build it will say so, and hold up no other.
    """
    folder_builds: list[DatasetBuild] = []
    for build in builds:
        try:
            folder_builds += (
                _folders(workspace, lake, build, update) if build.dataset.folders else [build]
            )
        except OUT_OF_REACH:
            if len(builds) == 1:
                raise
            folder_builds.append(build)
    _check_names(folder_builds)
    return tuple(folder_builds)


def look_at[T](read_source: Callable[[], T]) -> Callable[[], T]:
    """Begin to look at a source; what is returned waits for the end, and raises OSError where that takes too long.

    In a thread that nothing waits for: a folder of a server that went away may answer never.
    """
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(read_source())
        except Exception as e:
            answer.set_exception(e)

    def wait() -> T:
        try:
            return answer.result(SLOW_S)
        except TimeoutError as e:
            raise (
                e
                if answer.done()
                else TimeoutError(f"the source showed nothing within {SLOW_S:.0f} s")
            ) from e

    # In the context of who asks, which listens to what is told meanwhile
    threading.Thread(target=copy_context().run, args=(run,), daemon=True).start()
    return wait


def all_builds(
    workspace: Workspace,
    lake: Lake | None,
    configured: Sequence[DatasetBuild],
    *,
    update: bool = False,
) -> list[DatasetBuild]:
    """The configured datasets, and those that the workspace holds besides, as they were built last."""
    builds = {
        build.name: build for build in with_folders(workspace, lake, configured, update=update)
    }
    stored = last_builds(lake) if lake else {}
    return list((stored | builds).values())


def _folders(
    workspace: Workspace, lake: Lake | None, build: DatasetBuild, update: bool
) -> list[DatasetBuild]:
    """A build for each folder that an entry names."""
    build, dataset_places = _looked_at(workspace, lake, build, update)
    patterns = build.dataset.folders
    places = [place for place in dataset_places.datasets if place.folder]
    chosen = [
        place for place in places if any(fnmatchcase(place.folder, pattern) for pattern in patterns)
    ]
    if not chosen:
        folder_names = named([place.folder for place in places]) or "no dataset in a folder"
        problem = f"no dataset of {build.dataset.source} is in folders {', '.join(patterns)}"
        raise UserError(f"{build.name}: {problem}; it holds {folder_names}")
    names = _own_names(build, chosen)
    return [
        _part(build, place, f"{build.name}-{name}")
        for place, name in zip(chosen, names, strict=True)
    ]


def _looked_at(
    workspace: Workspace, lake: Lake | None, build: DatasetBuild, update: bool
) -> tuple[DatasetBuild, Places]:
    """What the source of a build holds, and the build at the commit at which it was looked at: all parts are of one.

    Raises SourceError for nothing, and for a part of a dataset.
    """
    commit = commit_read(stored_builds(lake), build) if lake and not update else None
    source = build.source(workspace.sources, commit)
    places = places_of(source)
    check_places(source, places)
    return build.read_at(source.fingerprint()) if build.dataset.is_on_hub else build, places


def _own_names(build: DatasetBuild, places: Sequence[DatasetPlace]) -> list[str]:
    """The name that each dataset's own folder gives it, with as many of the folders above it as tell it from others.

    Example: rank_0/id_0, rank_1/id_0 and rank_1/id_1 are "rank_0-id_0", "rank_1-id_0" and "id_1". Raises UserError for
    a folder that gives no name.
    """
    paths: list[list[str]] = []
    for place in places:
        outer_folders = place.folder.split("/")[:-1]
        names_above = [name_of(folder) for folder in reversed(outer_folders)]
        paths.append([_folder_name(build, place), *filter(None, names_above)])
    lengths = [1] * len(paths)
    while True:
        names = [
            "-".join(reversed(path[:length])) for path, length in zip(paths, lengths, strict=True)
        ]
        counts = Counter(names)
        longer = [
            k for k, name in enumerate(names) if counts[name] > 1 and lengths[k] < len(paths[k])
        ]
        if not longer:
            return names
        for k in longer:
            lengths[k] += 1


def _folder_name(build: DatasetBuild, place: DatasetPlace) -> str:
    """Raises UserError where a dataset's own folder gives no name."""
    address = address_below(build.dataset.source, place.folder)
    name = name_of(last_name(address))
    if not name:
        raise UserError(
            f"{address} gives no dataset name (a-z, 0-9, _ and -): build it alone with --name NAME"
        )
    return name


def _part(build: DatasetBuild, place: DatasetPlace, name: str) -> DatasetBuild:
    """The build of one dataset of a source; what was published of all of them is not known of one."""
    whole = build.dataset
    changes: dict[str, object] = {
        "name": name,
        "source": address_below(whole.source, place.folder),
        "folders": (),
    }
    if place.folder:
        shape = whole.published.model_dump(
            include={"fps", "image_shape", "state_dim", "action_dim"}
        )
        title = f"{whole.title}: {place.folder}" if whole.title else None
        changes |= {"published": Published(**shape), "title": title}
    return build.model_copy(update={"dataset": whole.model_copy(update=changes)})


def _check_names(builds: Sequence[DatasetBuild]) -> None:
    """Raises UserError for a name that two datasets would have."""
    for name, count in Counter(build.name for build in builds).items():
        if count > 1:
            sources = " and ".join(build.dataset.source for build in builds if build.name == name)
            raise UserError(
                f"{sources} would both be called {name}: build each alone, with --source and --name"
            )


def _check_is_same(lake: Lake, build: DatasetBuild) -> None:
    """Raises UserError where the workspace has another dataset of that name."""
    former = replaced(lake, build)
    # A folder that is not there any more may have been moved
    if former and (former.is_remote or Path(former.source).exists()):
        raise UserError(
            f"this workspace has a dataset {build.name} from {former.source}: give that of {build.dataset.source} "
            f"another name with --name; or say --accept-changes where it is the same data at another place, or "
            f"--replace to put the old one away first ({holdings(lake, build.name).sentence})"
        )


def replaced(lake: Lake, build: DatasetBuild) -> DatasetConfig | None:
    """The dataset of another source that has the name of a build; None: there is none."""
    stored = stored_build(lake, build.name)
    if stored is None or stored.dataset.source == build.dataset.source:
        return None
    return stored.dataset
