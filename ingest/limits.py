"""What one source may take of memory and time: the only place that says how much is too much.

A small file can claim anything: a million rows of one repeated text, a picture of any size, a video shown a million
times over. So the claim is looked at before what it claims is read, and a claim beyond its limit is a finding
(`over_limit`) with the figure. The limits are those of a registry entry (`limits`), which may raise or lower each.
"""

from pydantic import BaseModel, Field

from ingest.reasons import DataError


class Limits(BaseModel, extra="forbid", frozen=True):
    """Limits for the files of a dataset. A file beyond a limit is not read; a finding gives its figure."""

    max_pixels: int = Field(default=1 << 25, ge=1, description="pixels of one picture, in a video or not: 8K")
    max_fps: float = Field(default=1000.0, gt=0, description="frames a second that an episode claims")
    max_frames: int = Field(default=1 << 23, ge=1, description="frames of one video file")
    max_episodes: int = Field(
        default=1 << 19, ge=1, description="episodes of one dataset of LeRobot, in its metadata or its rows"
    )
    max_rows: int = Field(
        default=1 << 20, ge=1, description="rows of one episode (ten hours), or of one table of metadata"
    )
    max_values: int = Field(default=1 << 24, ge=1, description="numbers of one column of an episode: rows x dimensions")
    max_bytes: int = Field(
        default=1 << 26,
        ge=1,
        description="bytes in memory of the texts of one table of metadata, or of one page of a host's file list",
    )
    max_text: int = Field(
        default=1 << 16, ge=1, description="characters of one text: a task, a name of a step, a camera or a robot"
    )
    max_file_bytes: int = Field(
        default=1 << 28, ge=1, description="size of one file of metadata: JSON, JSON lines, CSV, texts"
    )
    max_chunk_bytes: int = Field(
        default=1 << 26,
        ge=1,
        description="bytes of what is read at once: an unpacked chunk of HDF5 or Zarr, an encoded picture",
    )
    max_files: int = Field(default=1 << 21, ge=1, description="files of a remote source, or of one tar")
    max_pages: int = Field(default=20_000, ge=1, description="folders of a web server")
    max_header_bytes: int = Field(
        default=1 << 20,
        ge=1,
        description="bytes of the headers of one member of a tar, such as its name; of one description in a Zarr store",
    )
    max_unpacked_bytes: int = Field(
        default=16 << 30,
        ge=1,
        description="bytes of unpacked members of tars that are kept; the least recently used are deleted first",
    )
    max_features: int = Field(
        default=10_000,
        ge=1,
        description="parts with a name each: features of an RLDS record, objects of an HDF5 file, arrays of a Zarr "
        "group or a `.npz` file, topics, types and joints of an MCAP recording",
    )

    max_memory_bytes: int = Field(
        default=4 << 30, ge=1 << 26, description="memory that reading an episode takes beside the program's own"
    )
    max_cpu_s: float = Field(
        default=60.0,
        gt=0,
        description="seconds of CPU for a list of episodes, one's rows, or one's pictures of a camera",
    )
    max_cpu_s_per_mb: float = Field(default=300.0, ge=0, description="further seconds for each MB of what is read")

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
