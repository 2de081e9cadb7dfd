"""The files of a source that no reader opens, in any format: by pattern, since there may be many."""

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from itertools import chain, filterfalse

from core.values import grouped
from ingest.episode import EpisodeRecord, Finding, PartCensus, SourcePart
from ingest.sources.files import Source
from ingest.sources.types import folders_above

# Patterns of whole paths, and why these files hold nothing of a run
KnownPaths = Sequence[tuple[re.Pattern[str], str]]
NUMBER = re.compile(r"[0-9a-f]{12,}|\d+")  # digits, or a hash
# Of the files of one source; where there are more, one for each folder and suffix
MAX_PATTERNS = 50
# Names of files that tell nothing of a run, and why, in any folder
FOR_PEOPLE = r"(readme|licen[cs]e|notice|citation|changelog|authors|contributing)([-_]\w+)*(\.(txt|html|cff))?"
BOOKKEEPING = (
    (rf"{FOR_PEOPLE}|.*\.(md|rst|bib|pdf)", "words for people"),
    (r".*\.(md5|sha1|sha256|sha512)|(md5|sha\d+)sums?(\.txt)?", "checksums"),
    (r"thumbs\.db|desktop\.ini|.*\.lock|.*\.py|.*\.ipynb|.*\.sh|requirements.*\.txt", "no data"),
)
BOOKKEEPING_NAMES = tuple((re.compile(pattern, re.IGNORECASE), why) for pattern, why in BOOKKEEPING)
# Of an array that is a folder; group 1 is the array
CHUNK = re.compile(r"(.+)/(?:c/)?\d+(?:[./]\d+)*")
# Whole paths of files, and why: in any format, and beside the data of one
DEPTH = r"(.*[/_])?depth([/_].*)?\.(png|jpg|jpeg|exr|npy|npz|mp4|mkv|avi)"
ANYWHERE = (
    (DEPTH, "depth: labels are made by colour pictures"),
    (
        r"(.*/)?(dataset_infos?\.json|dataset_statistics.*\.json)",
        "what a package or a training says of the dataset",
    ),
)
OF_FORMAT = {
    "droid": (
        (r".*recordings/SVO/.*", "what the cameras themselves recorded: the videos are of it"),
        (r".*-stereo\.mp4", "both eyes of a camera beside each other; one of them is read"),
    ),
    "rh20t": ((r".*_human/.*", "a person at the task, not a robot"),),
    "video": (
        (
            r".*\.(npz|npy|parquet|arrow|feather|hdf5|h5|hdf|tfrecord|pkl|mcap|bag)",
            "they may hold rows: see the finding rows_not_read",
        ),
    ),
    "xr": (  # xr_teleoperate
        (r".*depths/.*", "depth: labels are made by colour pictures"),
        (r".*audios/.*", "sound"),
        (r".*colors/.*", "pictures that rows name"),
    ),
    "lerobot": (
        (
            r"(.*/)?meta/((relative_)?stats\.(json|safetensors)|episodes_stats\.jsonl)",
            "statistics of columns, held against the rows where they can be",
        ),
        (
            r"images/.*\.(png|jpg|jpeg)",
            "pictures that rows name, or that a recorder left beside its videos",
        ),
    ),
}


def _known_paths(format_name: str) -> KnownPaths:
    """Patterns of paths that are known in a dataset of a format, each with the reason."""
    patterns = (*ANYWHERE, *OF_FORMAT.get(format_name, ()))
    return tuple((re.compile(pattern, re.IGNORECASE), reason) for pattern, reason in patterns)


def add_unread_files(
    census: PartCensus,
    source: Source,
    format_: str,
    records: Collection[EpisodeRecord],
    findings: Collection[Finding],
) -> None:
    """Account for files, and members of tars that were looked into, that nothing read, names or finds fault with.

    `format_`: as in a listing. A part of kind `file` that a reader declared stands for all files
    that fit its name, in which * is any text.
    """
    unread = _unread(source, _named(records, findings))
    parts = census.listed()
    for part in (part for part in parts if part.kind == "file"):
        declared = re.compile(".*".join(map(re.escape, part.name.split("*"))))
        unread = list(filterfalse(declared.fullmatch, unread))
    arrays = {part.name for part in parts if part.kind in ("array", "camera")}
    unread = [uri for uri in unread if not _is_chunk(uri, arrays)]
    known_paths = _known_paths(format_.partition("_")[0])
    for pattern, uris in _grouped(unread, known_paths).items():
        reason = _why_known(uris[0], known_paths)
        status = "known" if reason else "unknown"
        reason = reason or "nothing names it, and no reader opens it"
        census.add(
            SourcePart("file", pattern, status, "", reason, file=uris[0], num_times=len(uris))
        )


def _unread(source: Source, named_uris: set[str]) -> list[str]:
    """Files, and members of tars that were looked into, that were neither read nor named, nor lie in a named folder.

    A named folder holds an episode's rows, as a Zarr store does, and its reader accounts for it; or
    a finding names it.
    """
    members: list[str] = []
    for tar, archive in source.indexed_tars.items():
        members += [f"{tar}!/{name}" for name in archive.members]
    folders = named_uris - source.files.keys()
    known_uris = named_uris | source.read_files
    return [
        uri
        for uri in chain(source.files, members)
        if uri not in known_uris and folders.isdisjoint(folders_above(uri))
    ]


def _why_known(uri: str, known_paths: KnownPaths) -> str:
    """Why a file holds nothing of a run, by its name; "" where it may."""
    name = uri.rsplit("/", 1)[-1]
    by_name = (reason for pattern, reason in BOOKKEEPING_NAMES if pattern.fullmatch(name))
    by_path = (reason for pattern, reason in known_paths if pattern.fullmatch(uri))
    return next(chain(by_name, by_path), "")


def _named(records: Collection[EpisodeRecord], findings: Collection[Finding]) -> set[str]:
    """The files, or folders, that episodes rest on, and those of which a finding speaks."""
    named_uris = {record.data_uri for record in records} | {finding.file for finding in findings}
    for record in records:
        named_uris.update(video.uri for video in record.videos)
    return set(filter(None, named_uris))


def _is_chunk(uri: str, arrays: set[str]) -> bool:
    """Is a file a chunk of an array that a reader accounts for, by the path of the array or the end of it?"""
    match = CHUNK.fullmatch(uri)
    if match is None:
        return False
    names = match[1].split("/")
    return any("/".join(names[place:]) in arrays for place in range(len(names)))


def _grouped(uris: Sequence[str], known_paths: KnownPaths) -> Mapping[str, list[str]]:
    """Files by name with * for each number; where these are many, by folder and suffix."""
    groups = grouped((NUMBER.sub("*", uri), uri) for uri in uris)
    if len(groups) <= MAX_PATTERNS:
        return {_pattern(of_group): of_group for of_group in groups.values()}
    wider: dict[str, list[str]] = defaultdict(list)
    for pattern, of_pattern in groups.items():
        folder, slash, name = pattern.rpartition("/")
        _, dot, suffix = name.rpartition(".")
        # What says why a file is no data is in its name, which stays
        is_known = _why_known(of_pattern[0], known_paths) != ""
        wider[pattern if is_known else f"{folder}{slash}*{dot}{suffix}"] += of_pattern
    return wider


def _pattern(uris: Sequence[str]) -> str:
    """What files are called that differ in numbers alone, with * for the numbers that differ."""
    first = NUMBER.findall(uris[0])
    differs = [False] * len(first)
    for uri in uris[1:]:
        differs = [
            is_varying or a != b
            for is_varying, a, b in zip(differs, first, NUMBER.findall(uri), strict=True)
        ]
    numbers = ("*" if is_other else number for is_other, number in zip(differs, first, strict=True))
    return NUMBER.sub(lambda _: next(numbers), uris[0])
