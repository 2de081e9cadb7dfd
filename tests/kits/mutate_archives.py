"""Spoiling tar archives, TFRecord files, and arrays with pickles in them."""

import io
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.kits import rlds_writer as rlds
from tests.kits.mutate_files import NAMES, Site
from tests.kits.rlds_writer import masked_crc

# Tar


def edit_tar(site: Site, edit: Callable[[tarfile.TarInfo], str | None]) -> str | None:
    """Write an archive anew with one more member, that `edit` makes of one that it has."""
    path = site.file()
    with tarfile.open(path) as archive:
        members = [(m, archive.extractfile(m).read() if m.isreg() else b"") for m in archive]  # type: ignore[union-attr]
    plain = [(m, d) for m, d in members if m.isreg()]
    info, data = site.rng.choice(plain)
    changed = tarfile.TarInfo(info.name)
    changed.size = info.size
    said = edit(changed)
    at = site.rng.randrange(len(members))
    keep = members if site.rng.random() < 0.5 else [x for x in members if x[0] is not info]
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for member, content in [*keep[:at], (changed, data), *keep[at:]]:
            archive.addfile(member, io.BytesIO(content) if member.isreg() else None)
    return f"{site.shown(path)} {said}"


def tar_name(site: Site) -> str | None:
    def edit(info: tarfile.TarInfo) -> str:
        out = site.outside
        info.name = site.rng.choice([
            f"../../../outside/{Path(info.name).name}", f"{out}/new{Path(info.name).suffix}", f"a/../../{info.name}",
            "..",
            f"x/{'d/' * 300}f", f"{info.name}\n", info.name.replace("/", "//"), f"./{info.name}", *NAMES,
        ])  # fmt: skip
        return f"has {info.name[:60]!r}"

    return edit_tar(site, edit)


def tar_link(site: Site) -> str | None:
    def edit(info: tarfile.TarInfo) -> str:
        info.type = site.rng.choice(
            [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE]
        )
        info.linkname = site.rng.choice([str(site.outside / "secret.mp4"), "../../../../outside/secret.mp4", info.name])
        info.size = 0
        return f"has {info.name} of type {info.type!r} to {info.linkname}"

    return edit_tar(site, edit)


def tar_size(site: Site) -> str:
    """A member's header says another size."""
    path = site.file()
    with tarfile.open(path) as archive:
        offsets = [m.offset for m in archive if m.isreg()]
    data, at = bytearray(path.read_bytes()), site.rng.choice(offsets)
    sizes = [
        b"77777777777\0",
        b"00000000000\0",
        b"\x80" + b"\x7f" * 11,
        b"\xff" * 12,
        b"not a size\0\0",
        b"-0000000100\0",
    ]
    data[at + 124 : at + 136] = site.rng.choice(sizes)
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    path.write_bytes(data)
    return f"{site.shown(path)} header at {at} says {bytes(data[at + 124 : at + 136])!r}"


# TFRecord


def tf_records(path: Path) -> list[bytes]:
    data, found, at = path.read_bytes(), [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 8], "little")
        found.append(data[at + 12 : at + 12 + size])
        at += size + 16
    return found


def record_length(site: Site) -> str:
    """A length that its CRC confirms, or not."""
    path = site.file()
    data = bytearray(path.read_bytes())
    size = site.rng.choice([0, 1, 2**31, 2**63, 2**64 - 1, len(data)])
    data[:8] = size.to_bytes(8, "little")
    if confirmed := site.rng.random() < 0.7:
        data[8:12] = masked_crc(bytes(data[:8])).to_bytes(4, "little")
    path.write_bytes(data)
    return f"{site.shown(path)} {size} {'confirmed' if confirmed else ''}"


def record_content(site: Site) -> str:
    """Messages whose bytes are spoilt, with the right CRC."""
    path = site.file()
    records = [bytearray(r) for r in tf_records(path)]
    chosen = site.rng.choice(records)
    for _ in range(site.rng.choice([1, 3, 20])):
        at = site.rng.randrange(site.rng.choice([len(chosen), min(40, len(chosen))]))
        chosen[at] = site.rng.choice([0, 0xFF, 0x80, chosen[at] ^ 1 << site.rng.randrange(8)])
    path.write_bytes(b"".join(rlds.record(bytes(r)) for r in records))
    return site.shown(path)


def record_features(site: Site) -> str:
    """Whole messages in which one feature has other values."""
    path = site.file()
    wild: list[Any] = [
        [], [b""], [b"\xff\xfe\0"], [2**63 - 1, -1], np.array([np.nan] * 6, "f4"), np.array([3e38] * 24, "f4"),
        [b"\x89PNG" * 9] * 6,
        [0] * 7, [0] * 10_000, [rlds.png(1)] * 5 + [b""], [b"x" * 70_000] * 6, np.zeros(23, "f4"), None,
        [b"../../outside/x"] * 6,
    ]  # fmt: skip
    records = [rlds.episode(k) for k in range(len(tf_records(path)))]
    chosen = site.rng.choice(records)
    key = site.rng.choice(sorted(chosen))
    values = chosen[key] = site.rng.choice(wild)
    if values is None:
        del chosen[key]
    rlds.write_shard(path, records)
    return f"{site.shown(path)} {key} is {str(values)[:40]}"


def record_order(site: Site) -> str:
    path, how = site.file(), site.rng.choice(["twice", "none", "first only", "empty"])
    records = tf_records(path)
    order = {"twice": records * 2, "none": [], "first only": records[:1], "empty": [b"", *records]}
    path.write_bytes(b"".join(map(rlds.record, order[how])))
    return f"{site.shown(path)} records {how}"


# Arrays


class Hostile:
    """What makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def npy_pickle(site: Site) -> str:
    path = site.file()
    hostile = np.array([Hostile(site.outside / "unpickled")], dtype=object)
    if plain := site.rng.random() < 0.3:
        path.write_bytes(pickle.dumps(Hostile(site.outside / "unpickled")))
    else:
        np.save(path, hostile, allow_pickle=True)
    return f"{site.shown(path)} {'is a pickle' if plain else 'holds one'}"


def npy_header(site: Site) -> str:
    path = site.file()
    shape, descr = site.rng.choice([
        ("(1000000000000, 7)", "'<f8'"), ("(-1, 7)", "'<f8'"), ("(6, 7)", "'|O'"), ("()", "'<f8'"), ("(6, 7)",
        "'<U10'"),
        ("(6, 7)", "[('a', '<f8')]"), ("(2**62, 2**62)", "'<f8'"), ("(6, 0)", "'<f8'"), ("(6, 7)",
        "'<f8'}" + "#" * 20_000),
        ("(True, 7)", "'<f8'"), ("(6,) * 40", "'<f8'"), ("(" * 500 + ")" * 500, "'<f8'"), ("(6, 7)", "'<M8[ns]'"),
    ])  # fmt: skip
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}".encode().ljust(117) + b"\n"
    path.write_bytes(b"\x93NUMPY\x02\x00" + len(header).to_bytes(4, "little") + header + bytes(336))
    return f"{site.shown(path)} {shape[:30]} {descr[:30]}"


TAR = (tar_name, tar_link, tar_size)
TFRECORD = (record_length, record_content, record_features, record_order)
ARRAYS = (npy_pickle, npy_header)
