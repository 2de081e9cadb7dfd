"""Spoiling HDF5 files: links, storage, shapes, types and values."""

from collections.abc import Callable
from typing import Any

import h5py
import numpy as np

from tests.kits.mutate_files import Site


def edit_h5(site: Site, edit: Callable[[h5py.File, str], str | None]) -> str | None:
    """Change one object of a file; `edit` gets its path."""
    path = site.file()
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        said = edit(file, site.rng.choice(names))
    return said and f"{site.shown(path)} {said}"


def h5_external_link(site: Site) -> str | None:
    def edit(file: h5py.File, name: str) -> str:
        del file[name]
        file[name] = h5py.ExternalLink(str(site.outside / "secret.h5"), site.rng.choice(["/", "/pictures", "/numbers"]))
        return f"{name} lies outside"

    return edit_h5(site, edit)


def h5_outside_storage(site: Site) -> str | None:
    def edit(file: h5py.File, name: str) -> str | None:
        if not isinstance(file[name], h5py.Dataset) or not file[name].shape:
            return None
        shape, dtype = file[name].shape, file[name].dtype
        dtype = np.dtype(np.uint8) if dtype.kind == "O" else dtype
        del file[name]
        if site.rng.random() < 0.5:
            storage = [(str(site.outside / "secret.bin"), 0, h5py.h5f.UNLIMITED)]
            file.create_dataset(name, shape, dtype, external=storage)
            return f"{name} is stored outside"
        layout = h5py.VirtualLayout(shape, dtype)
        layout[...] = h5py.VirtualSource(str(site.outside / "secret.h5"), "numbers", shape=shape, dtype=dtype)
        file.create_virtual_dataset(name, layout)
        return f"{name} is virtual"

    return edit_h5(site, edit)


def h5_link_loop(site: Site) -> str | None:
    def edit(file: h5py.File, name: str) -> str:
        del file[name]
        how = site.rng.choice(["self", "pair", "parent", "root"])
        if how == "pair":
            file[name + "_"] = h5py.SoftLink(f"/{name}")
        if how == "parent":
            file[name] = file[name.rpartition("/")[0] or "/"]
        else:
            file[name] = h5py.SoftLink({"self": f"/{name}", "pair": f"/{name}_", "root": "/"}[how])
        return f"{name} to its {how}"

    return edit_h5(site, edit)


def h5_huge(site: Site) -> str | None:
    """A shape that nothing was ever stored of, or stored so well that a small file holds it."""

    def edit(file: h5py.File, name: str) -> str:
        shape = getattr(file[name], "shape", None) or (1,)
        del file[name]
        rows = site.rng.choice([10**6, 10**9, 10**12])
        how = site.rng.choice(["contiguous", "chunked", "large chunks", "well packed"])
        kwargs: dict[str, Any] = {"chunked": {"chunks": True}, "large chunks": {"chunks": (1 << 24, *shape[1:])}}.get(
            how, {}
        )
        if how == "well packed":
            zeros = np.zeros((1 << 13, 4096), np.uint8)
            file.create_dataset(name, data=zeros, chunks=(1 << 12, 4096), compression=1)
        else:
            file.create_dataset(name, (max(rows, 1 << 24), *shape[1:]), "f4" if len(shape) < 4 else "u1", **kwargs)
        return f"{name} {how} {rows}"

    return edit_h5(site, edit)


def h5_type(site: Site) -> str | None:
    def edit(file: h5py.File, name: str) -> str:
        rows = (getattr(file[name], "shape", None) or (3,))[0]
        del file[name]
        values = site.rng.choice([
            "text", np.zeros(rows, "S5"), np.zeros((rows, 2), [("a", "f8"), ("b", "S2")]), np.zeros((rows, 3), "c16"),
            h5py.Empty("f4"), np.zeros((0, 3)), 7.0, np.zeros((rows, 2, 2, 2, 2)), np.zeros((rows, 7), ">u2"),
            b"\xff\xfe",
            np.zeros(rows, bool), np.array([b"\x89PNG\r\n\x1a\n" + bytes(60)] * rows),
        ])  # fmt: skip
        if site.rng.random() < 0.15:
            file.create_dataset(name, (rows,), h5py.ref_dtype)
        elif site.rng.random() < 0.15:
            file.create_group(name)
        else:
            file[name] = values
        return f"{name} is {file[name]!r:.80}"

    return edit_h5(site, edit)


def h5_without(site: Site) -> str | None:
    def edit(file: h5py.File, name: str) -> str:
        del file[name]
        return f"without {name}"

    return edit_h5(site, edit)


def h5_values(site: Site) -> str | None:
    def edit(file: h5py.File, name: str) -> str | None:
        node = file[name]
        if not isinstance(node, h5py.Dataset) or node.dtype.kind not in "fiu" or not node.shape or not node.size:
            return None
        stored, how = node[()], site.rng.choice(["nan", "huge", "negative", "shorter", "turned", "mixed"])
        with np.errstate(all="ignore"):
            if how in ("nan", "huge", "negative"):
                wild = {"nan": np.nan, "huge": 1e308, "negative": -1}[how]
                values = stored.astype("f8" if stored.ndim < 4 else stored.dtype)
                values[site.rng.randrange(len(values))] = wild if stored.ndim < 4 else 255
            else:
                turned = stored[..., None] if stored.ndim < 2 else stored.swapaxes(0, 1)
                values = {"shorter": stored[:-1], "turned": turned, "mixed": stored[::-1]}[how]
        del file[name]
        file[name] = values
        return f"{name} {how}"

    return edit_h5(site, edit)


def h5_attribute(site: Site) -> str | None:
    def edit(file: h5py.File, name: str) -> str:
        held = [n for n in (name, name.split("/")[0], "/") if len(file[n].attrs)]
        attributes = file[site.rng.choice(held or [name])].attrs
        key = site.rng.choice(sorted(attributes) or ["num_samples", "success", "language_instruction"])
        attributes[key] = site.rng.choice([
            -1, 2**62, np.nan, "", "{" * 5000, '{"env_kwargs": {"control_freq": 1e400}}', "[" * 9000, b"\xff\xfe",
            np.zeros((50, 50)), h5py.Empty("f4"), '{"language_instruction": ["a", 1, null]}',
            '{"language_instruction": "\\ud800"}',
        ])  # fmt: skip
        return f"attribute {key} is {attributes[key]!r:.60}"

    return edit_h5(site, edit)


HDF5 = (
    h5_external_link,
    h5_outside_storage,
    h5_link_loop,
    h5_huge,
    h5_type,
    h5_without,
    h5_values,
    h5_attribute,
)
