"""What the tables of an MP4 or MOV file claim, read before FFmpeg reads them.

FFmpeg makes an entry in memory for each sample that the header claims, and again for each time that an edit list shows
it: some bytes may claim billions. The tables are found by their names wherever in the header they stand, not by
following the boxes they should stand in: a file can nest boxes in ways that FFmpeg follows and a second reader does
not.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from ingest.limits import LIMITS, Limits
from ingest.reasons import DataError

BLOCK_BYTES = 1 << 20
BOX_NAME = re.compile(rb"[A-Za-z0-9 \xa9_-]{4}")  # what FFmpeg knows; it passes over all others
TABLE = re.compile(rb"stsz|stz2|trun|elst|cmov")
AFTER_BYTES = 24  # from a table's name to the end of its count, at most
SIZE_BYTES = 4  # of a box, before its name


@dataclass
class Claims:
    """`samples`: of all tracks, without those of uncompressed sound. `edits`: of the longest edit list."""

    samples: int = 0
    edits: int = 0

    @property
    def shown(self) -> int:
        """Samples that are held in memory, at most: each as often as edits can show it."""
        return self.samples * max(1, self.edits)


def claims_of(file: BinaryIO, num_bytes: int, limits: Limits = LIMITS) -> Claims:
    """What an MP4 or MOV file of so many bytes claims. Raises DataError and OSError."""
    claims = Claims()
    has_sound, even = False, 0
    for header in _headers(file, num_bytes, limits):
        has_sound = has_sound or b"soun" in header
        for found in TABLE.finditer(header, SIZE_BYTES, max(SIZE_BYTES, len(header) - AFTER_BYTES)):
            if found[0] == b"cmov":
                raise DataError("its header is compressed, which is not read", "over_limit")
            even += _add(claims, header, found, num_bytes)
    # Uncompressed sound has a sample for each of its values, all of one size, which FFmpeg does not list one by one
    if not has_sound:
        claims.samples += even
    return claims


def _add(claims: Claims, header: bytes, found: re.Match[bytes], num_bytes: int) -> int:
    """Add one table to the claims; returns samples that count only where the file has no sound."""

    def number(at: int) -> int:
        return int.from_bytes(header[at : at + 4])

    size, at = number(found.start() - SIZE_BYTES), found.end()
    # A size of 1 says that a longer one follows the name
    at += 8 if size == 1 else 0
    name = found[0]
    if name == b"elst":
        # FFmpeg goes by the box's size where the count is another; 12 bytes an edit
        entries = (num_bytes if size in (0, 1) else min(size, num_bytes) - 16) // 12
        claims.edits = max(claims.edits, entries)
    elif name == b"trun":
        claims.samples += number(at + 4)
    else:
        each, count = number(at + 4), number(at + 8)
        if name == b"stsz" and each and each * count <= num_bytes:
            return count
        claims.samples += count
    return 0


def _headers(file: BinaryIO, num_bytes: int, limits: Limits) -> Iterator[bytes]:
    """All of a file but its media data, in blocks that overlap by what a table's name and count take.

    Ten hours of video have a header of some 20 MB; a file in fragments has two boxes for each. Raises DataError.
    """
    at, taken, count = 0, 0, 0
    while at + 8 <= num_bytes:
        count += 1
        limits.check("max_rows", count, "boxes beside each other")
        file.seek(at)
        begin = file.read(16)
        size, name = int.from_bytes(begin[:4]), begin[4:8]
        if size == 1:
            size = int.from_bytes(begin[8:16])
        elif size == 0:
            size = num_bytes - at
        if size < 8:
            return
        end = min(at + size, num_bytes)
        if name != b"mdat" and BOX_NAME.fullmatch(name):
            taken += end - at
            limits.check("max_file_bytes", taken, "bytes of its header")
            yield from _blocks(file, at, end)
        at += size


def _blocks(file: BinaryIO, start: int, end: int) -> Iterator[bytes]:
    overlap = SIZE_BYTES + AFTER_BYTES + 3  # a name is found in one block only
    file.seek(start)
    kept = b""
    for at in range(start, end, BLOCK_BYTES):
        block = kept + file.read(min(BLOCK_BYTES, end - at))
        # Behind the last one nothing follows: zeros let a table at the very end be found
        yield block + (bytes(AFTER_BYTES) if at + BLOCK_BYTES >= end else b"")
        kept = block[-overlap:]
