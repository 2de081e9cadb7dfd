"""The size that a JPEG XL file claims to be, by its header alone (ISO/IEC 18181-1, size header; 18181-2, boxes)."""

import struct

CODESTREAM = b"\xff\x0a"
CONTAINER = b"\x00\x00\x00\x0cJXL \r\n\x87\n"
MAX_BOXES = 64
RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))  # width to height
BITS = (9, 13, 18, 30)  # of a side, by a selector of two bits


class JpegXlError(ValueError):
    """A file whose header is damaged."""


def jpegxl_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in px; None for what is no JPEG XL. Raises JpegXlError for a header that is cut off."""
    begin = 0 if data.startswith(CODESTREAM) else _codestream(data) if data.startswith(CONTAINER) else None
    if begin is None:
        return None
    bits = _Bits(data[begin + 2 : begin + 18])
    in_eights = bits.take(1)
    height = _side(bits, in_eights)
    ratio = bits.take(3)
    if not ratio:
        return _side(bits, in_eights), height
    over, under = RATIOS[ratio - 1]
    return height * over // under, height


def _side(bits: "_Bits", in_eights: int) -> int:
    return 8 * (1 + bits.take(5)) if in_eights else 1 + bits.take(BITS[bits.take(2)])


def _codestream(data: bytes) -> int:
    """Where in a container's boxes the pixels' stream begins."""
    at = 0
    for _ in range(MAX_BOXES):
        if at + 16 > len(data):
            break
        length, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, at + 8)
            head = 16
        begin = at + head + (4 if kind == b"jxlp" else 0)
        if kind in (b"jxlc", b"jxlp"):
            if data[begin : begin + 2] != CODESTREAM:
                break
            return begin
        if length < head:
            break
        at += length
    raise JpegXlError("a JPEG XL file without pixels")


class _Bits:
    """Bits of some bytes, the lowest first."""

    def __init__(self, data: bytes) -> None:
        self.left, self.value = 8 * len(data), int.from_bytes(data, "little")

    def take(self, count: int) -> int:
        if count > self.left:
            raise JpegXlError("the file ends inside its header")
        taken = self.value & ((1 << count) - 1)
        self.value, self.left = self.value >> count, self.left - count
        return taken
