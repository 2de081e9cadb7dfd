"""What one source may take of memory and time: the only place that says how much is too much.

A small file can claim anything: a million rows of one repeated text, a picture of any size, a video shown a million
times over. So the claim is looked at before what it claims is read, and a claim beyond its limit is a finding
(`over_limit`) with the figure. The limits are those of a registry entry (`limits`), which may raise or lower each.
"""

from typing import Any

from pydantic import BaseModel, Field

from ingest.reasons import DataError


def _limit(default: float, description: str, **bounds: float) -> Any:
    return Field(default=default, description=description, **(bounds or {"ge": 1}))  # pyright: ignore


class Limits(BaseModel, extra="forbid", frozen=True):
    """Limits for the files of a dataset. A file beyond a limit is not read; a finding gives its figure."""

    max_pixels: int = _limit(1 << 25, "pixels of one picture, in a video or not: 8K")
    max_fps: float = _limit(1000.0, "frames a second that an episode claims", gt=0)
    max_frames: int = _limit(1 << 23, "frames of one video file")
    max_episodes: int = _limit(1 << 19, "episodes of one dataset of LeRobot, in its metadata or its rows")
    max_rows: int = _limit(1 << 20, "rows of one episode (ten hours), or of one table of metadata")
    max_values: int = _limit(1 << 24, "numbers of one column of an episode: rows x dimensions")
    max_bytes: int = _limit(
        1 << 26, "bytes in memory of the texts of one table of metadata, or of one page of a host's file list"
    )
    max_text: int = _limit(1 << 16, "characters of one text: a task, a name of a step, a camera or a robot")
    max_file_bytes: int = _limit(1 << 28, "size of one file of metadata: JSON, JSON lines, CSV, texts")
    max_chunk_bytes: int = _limit(
        1 << 26, "bytes of what is read at once: an unpacked chunk of HDF5 or Zarr, an encoded picture"
    )
    max_files: int = _limit(1 << 21, "files of a remote source, or of one tar")
    max_pages: int = _limit(20_000, "folders of a web server")
    max_header_bytes: int = _limit(
        1 << 20,
        "bytes of the headers of one member of a tar, such as its name; of one description in a Zarr store",
    )
    max_unpacked_bytes: int = _limit(
        16 << 30, "bytes of unpacked members of tars that are kept; the least recently used are deleted first"
    )
    max_features: int = _limit(
        10_000,
        "parts with a name each: features of an RLDS record, objects of an HDF5 file, arrays of a Zarr group or a "
        "`.npz` file, topics, types and joints of an MCAP recording",
    )
    max_memory_bytes: int = _limit(4 << 30, "memory that reading an episode takes beside the program's own", ge=1 << 26)
    max_cpu_s: float = _limit(
        60.0, "seconds of CPU for a list of episodes, one's rows, or one's pictures of a camera", gt=0
    )
    max_cpu_s_per_mb: float = _limit(300.0, "further seconds for each MB of what is read", ge=0)

    def excess(self, name: str, claimed: float, what: str, times: int = 1) -> str:
        """Why `claimed` is more than the limit `name` (or so many times it) allows of `what`; "" where it is not.

        Example: LIMITS.excess("max_rows", 1 << 21, "a.parquet: rows").
        """
        limit = getattr(self, name) * times
        if claimed <= limit:
            return ""
        rule = f"limits.{name}" if times == 1 else f"{times} x limits.{name}"
        return f"{what}: {claimed:,.0f}, over the limit of {limit:,} ({rule} of the registry entry)"

    def check(self, name: str, claimed: float, what: str, times: int = 1) -> None:
        """Raises DataError, as a finding `over_limit`, for what `excess` says."""
        if problem := self.excess(name, claimed, what, times):
            raise DataError(problem, "over_limit")

    def cpu_s(self, num_bytes: int) -> float:
        """Seconds of CPU that work on so many bytes may take."""
        return self.max_cpu_s + self.max_cpu_s_per_mb * num_bytes / 1e6


LIMITS = Limits()
