"""What one source may take of memory and time: the only place that says how much is too much.

A small file can claim anything: a million rows of one repeated text, a picture of any size, a video shown a million
times over. So the claim is looked at before what it claims is read, and a claim beyond its limit is a finding
(`over_limit`) with the figure. The limits are those of a registry entry (`limits`), which may raise or lower each.
"""

from pydantic import BaseModel, Field


class Limits(BaseModel, extra="forbid", frozen=True):
    """What files of a dataset may claim. What is beyond is not read, and has a finding with the figure."""

    max_pixels: int = Field(default=1 << 25, ge=1, description="of one picture of a video, or of one beside it: 8K")
    max_frames: int = Field(
        default=1 << 23, ge=1, description="of one video file with all of its tracks, as often as it shows them"
    )
    max_rows: int = Field(default=1 << 20, ge=1, description="of one episode (ten hours), or of one table of metadata")
    max_values: int = Field(default=1 << 24, ge=1, description="numbers of one column of an episode: rows x dimensions")
    max_bytes: int = Field(
        default=1 << 26,
        ge=1,
        description="of texts of one table of metadata, or of one page of a host's list of files, once in memory",
    )

    max_text: int = Field(
        default=1 << 16, ge=1, description="characters of one text: a task, a name of a step, a camera or a robot"
    )

    max_file_bytes: int = Field(
        default=1 << 28, ge=1, description="of one file of metadata as it lies there: JSON, JSON lines, CSV, texts"
    )
    max_files: int = Field(default=1 << 21, ge=1, description="of a source that is not on this machine, or of one tar")
    max_pages: int = Field(default=20_000, ge=1, description="that a host lists its files on; of a web server, folders")
    max_header_bytes: int = Field(default=1 << 20, ge=1, description="that tell of one member of a tar: its name")
    max_unpacked_bytes: int = Field(
        default=16 << 30, ge=1, description="kept of unpacked members of tars; those used longest ago go first"
    )
    max_features: int = Field(default=10_000, ge=1, description="of one record of RLDS")

    def excess(self, name: str, claimed: float, what: str, times: int = 1) -> str:
        """Why `claimed` is more than the limit `name` (or so many times it) allows of `what`; "" where it is not.

        Example: LIMITS.excess("max_rows", 1 << 21, "a.parquet: rows").
        """
        limit = getattr(self, name) * times
        if claimed <= limit:
            return ""
        rule = f"limits.{name}" if times == 1 else f"{times} x limits.{name}"
        return f"{what}: {claimed:,.0f}, over the limit of {limit:,} ({rule} of the registry entry)"


LIMITS = Limits()
