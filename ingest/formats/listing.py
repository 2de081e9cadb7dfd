"""Gathering a dataset's listing: its episodes, and what is wrong with it."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ingest.episode import EpisodeRecord, Finding, Listing, RowsError
from ingest.formats.side_files import read_json
from ingest.outcomes import NO_EVIDENCE, Evidence, Outcome, decide, fields_of, folder_outcome, stated
from ingest.sources.files import Source

MAX_NAMED = 5  # files or cameras, in one message


@dataclass
class ListingBuilder:
    """The episodes and findings of a dataset, as an adapter comes upon them."""

    source: Source
    records: list[EpisodeRecord] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    evidence: dict[int, Evidence] = field(default_factory=dict)  # of outcomes, by episode_index
    never_set: tuple[str, ...] = ()

    @property
    def next_index(self) -> int:
        """The index of the episode that comes next, where episodes are counted."""
        return len(self.records)

    def warn(
        self,
        reason: str,
        detail: str,
        episode: int | None = None,
        *,
        camera: str | None = None,
        file: str | None = None,
    ) -> None:
        """Record what is doubtful: of an episode or a camera of it, or of the dataset."""
        self.findings.append(Finding(reason, detail, "warning", episode, camera, file))

    def unusable(
        self,
        reason: str,
        detail: str,
        episode: int | None = None,
        *,
        camera: str | None = None,
        file: str | None = None,
    ) -> None:
        """Record what makes an episode, a camera of it or the dataset unusable."""
        self.findings.append(Finding(reason, detail, "unusable", episode, camera, file))

    def read_json(self, uri: str, episode: int | None = None, *, default: Any = None) -> Any:
        """What a JSON file holds; `default`, with a warning, where it cannot be read."""
        try:
            return read_json(self.source, uri)
        except RowsError as e:
            self.warn(e.reason, str(e), episode, file=uri)
            return default

    def read_object(self, uri: str, episode: int | None = None) -> dict[str, Any]:
        """The object in a JSON file; {} where it holds another value, or (with a warning) cannot be read."""
        content = self.read_json(uri, episode)
        return content if isinstance(content, dict) else {}

    def lists_nothing(self, detail: str) -> None:
        """Record that there is no episode. Where files are git-LFS pointers, these are why."""
        if not any(f.reason == "lfs_pointer" for f in self.findings):
            self.unusable("no_episodes", detail)
        self.findings = [replace(f, severity="unusable") if f.reason == "lfs_pointer" else f for f in self.findings]

    def stated_outcome(self, facts: Mapping[str, Any]) -> Outcome | None:
        """Whether a run succeeded, by the field that the registry names, else by the usual ones."""
        return stated(facts, fields_of(self.source.config.success_field))

    def settle_outcomes(self) -> None:
        """Decide the outcomes of all records, which have to be there; of each once, before its index changes."""
        evidence = {r.episode_index: self.evidence.get(r.episode_index, NO_EVIDENCE) for r in self.records}
        # Whatever the format, files may lie in a folder that tells
        for record in self.records:
            of_record = evidence[record.episode_index]
            uris = [record.data_uri or "", *(video.uri for video in record.videos)]
            folder = of_record.folder or folder_outcome(*uris)
            evidence[record.episode_index] = replace(of_record, folder=folder)
        decided = decide(evidence)
        for place, record in enumerate(self.records):
            outcome = decided.outcomes[record.episode_index]
            if outcome:
                self.records[place] = replace(record, success=outcome.success, success_source=outcome.source)
        self.never_set = decided.never_set

    def group(self, facts: Mapping[str, Any], default: str) -> str:
        """The group that an episode's split is decided by: the field that the registry names, else a group of its own.

        `default` must not be the index of an episode that is counted: it moves when a file is added before it.
        """
        stated = facts.get(self.source.config.group_field or "")
        return default if stated in (None, "") else str(stated)

    def listing(
        self,
        format_: str,
        fps: float | None,
        cameras: Iterable[str],
        *,
        robot: str | None = None,
        numbered: bool = False,
    ) -> Listing:
        """All of it. `robot`: as the source says; the registry's counts before it."""
        self.settle_outcomes()
        return Listing(
            format_,
            fps,
            self.source.config.robot or robot,
            tuple(cameras),
            tuple(self.records),
            tuple(self.findings),
            numbered,
            self.never_set,
        )

    def cameras_in_use(self) -> list[str]:
        """Cameras that an episode has, each once, in order of appearance."""
        return list(dict.fromkeys(camera for record in self.records for camera in record.cameras))

    def first_fps(self) -> float | None:
        """The frame rate of the first episode."""
        return self.records[0].fps if self.records else None


def folders_of(pattern: re.Pattern[str], uris: Iterable[str]) -> dict[str, str]:
    """The folders that the first group of a pattern names in uris, for an adapter's `roots`. "" is the root."""
    matches = [pattern.fullmatch(uri) for uri in uris]
    return {(match[1] or "").rstrip("/"): "" for match in matches if match}


def named(things: Sequence[str]) -> str:
    """Some things by name; of many the first, and how many more. Example: named(["a", "b"]) == "a, b"."""
    first = ", ".join(things[:MAX_NAMED])
    more = len(things) - MAX_NAMED
    return f"{first} and {more} more" if more > 0 else first


def texts_among(values: Iterable[Any]) -> list[str]:
    """Those of some values that are texts, trimmed; empty ones are left out.

    Example: texts_among(["pick ", None, "", 3]) == ["pick"].
    """
    trimmed = [value.strip() for value in values if isinstance(value, str)]
    return [text for text in trimmed if text]


def unique_texts(values: Iterable[Any]) -> tuple[str, ...]:
    """As texts_among, each text once, in order of appearance."""
    return tuple(dict.fromkeys(texts_among(values)))
