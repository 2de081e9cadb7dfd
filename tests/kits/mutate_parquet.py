"""Spoiling Parquet tables: columns, rows, and what a file says of itself."""

from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq

from tests.kits.mutate_files import Site


def edit_table(site: Site, edit: Callable[[pa.Table], tuple[pa.Table, str]]) -> str:
    path = site.file()
    table, said = edit(pq.ParquetFile(path).read())
    pq.write_table(table, path)
    return f"{site.shown(path)} {said}"


def with_column(table: pa.Table, at: int, values: pa.Array) -> tuple[pa.Table, str]:
    name = table.schema.names[at]
    return table.set_column(at, name, values), f"{name} {str(values.type)[:40]}"


def column_dropped(site: Site) -> str:
    def edit(table: pa.Table) -> tuple[pa.Table, str]:
        at = site.rng.randrange(table.num_columns)
        return table.remove_column(at), f"without {table.schema.names[at]}"

    return edit_table(site, edit)


def column_values(site: Site) -> str:
    """A column of numbers that are too large, negative, no numbers, or nothing."""

    def edit(table: pa.Table) -> tuple[pa.Table, str]:
        at, n = site.rng.randrange(table.num_columns), table.num_rows
        wild = site.rng.choice([2**62, -1, -(2**62), 1e308, -1e308, float("nan"), float("inf"), None, True])
        some = [wild if site.rng.random() < 0.4 else k for k in range(n)] if site.rng.random() < 0.5 else [wild] * n
        types = pa.float64() if isinstance(wild, float) else pa.bool_() if wild is True else pa.int64()
        wide = pa.types.is_list(table.column(at).type) or pa.types.is_fixed_size_list(table.column(at).type)
        if wide and wild is not None:
            values = pa.array([[v if wild is not True else True] * 3 for v in some], pa.list_(types, 3))
        else:
            values = pa.array([bool(v) if wild is True else v for v in some], types)
        table, said = with_column(table, at, values)
        return table, f"{said} {wild}"

    return edit_table(site, edit)


def column_type(site: Site) -> str:
    def edit(table: pa.Table) -> tuple[pa.Table, str]:
        at, n = site.rng.randrange(table.num_columns), table.num_rows
        values = site.rng.choice([
            pa.array(["0"] * n), pa.array([b"\xff\0"] * n), pa.array([{"bytes": b"x", "path": "../x"}] * n),
            pa.array([[["a"]]] * n), pa.array([[]] * n), pa.nulls(n), pa.array([0] * n, pa.timestamp("ns")),
            pa.array(["a"] * n).dictionary_encode(), pa.array([2**64 - 1] * n, pa.uint64()), pa.array([0.5] * n,
            pa.float16()),
        ])  # fmt: skip
        return with_column(table, at, values)

    return edit_table(site, edit)


def column_ragged(site: Site) -> str:
    def edit(table: pa.Table) -> tuple[pa.Table, str]:
        at, n = site.rng.randrange(table.num_columns), table.num_rows
        rows = [site.rng.choice([None, [], [0.0] * site.rng.randrange(5)]) for _ in range(n)]
        return with_column(table, at, pa.array(rows, pa.list_(pa.float64())))

    return edit_table(site, edit)


def column_paths(site: Site) -> str:
    """Texts and pictures' paths that lead out."""

    def edit(table: pa.Table) -> tuple[pa.Table, str]:
        n = table.num_rows
        known = [k for k, f in enumerate(table.schema) if not pa.types.is_integer(f.type)] or range(table.num_columns)
        at, paths = site.rng.choice(known), ["../../outside/secret.png", f"{site.outside}/secret.png", "a\0b", "\u202e"]
        text = site.rng.choice(paths)
        if pa.types.is_struct(table.column(at).type):
            return with_column(table, at, pa.array([{"bytes": None, "path": text}] * n))
        return with_column(table, at, pa.array([text] * n))

    return edit_table(site, edit)


def rows_moved(site: Site) -> str:
    def edit(table: pa.Table) -> tuple[pa.Table, str]:
        n, how = table.num_rows, site.rng.choice(["mixed", "twice", "none", "backwards", "first only", "names twice"])
        order = {"mixed": site.rng.sample(range(n), n), "twice": [*range(n)] * 2, "none": [], "first only": [0][:n]}
        if how == "names twice":
            return table.append_column(table.schema.names[0], table.column(0)), how
        return table.take(pa.array(order.get(how, range(n)[::-1]), pa.int64())), how

    return edit_table(site, edit)


def footer(site: Site) -> str:
    """Bytes of a Parquet file's description of itself, and its length."""
    path = site.file()
    data = bytearray(path.read_bytes())
    size = int.from_bytes(data[-8:-4], "little")
    if site.rng.random() < 0.3:
        data[-8:-4] = site.rng.choice([0, 1, 2**31 - 1, 2**32 - 1, size - 1, size * 2]).to_bytes(4, "little")
    else:
        for _ in range(site.rng.choice([1, 3, 10])):
            data[len(data) - 8 - 1 - site.rng.randrange(size)] = site.rng.choice(
                [0, 0x7F, 0xFF, site.rng.randrange(256)]
            )
    path.write_bytes(data)
    return site.shown(path)


def long_column(site: Site) -> str:
    """So many equal rows that a small file holds more than memory does, were it read whole."""
    path = site.file()
    one, n = pq.ParquetFile(path).read().slice(0, 1), 3_000_000
    same = {f.name: pa.repeat(one.column(k)[0], n) for k, f in enumerate(one.schema) if pa.types.is_primitive(f.type)}
    table = pa.table(same)
    with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
        for _ in range(3):
            writer.write_table(table)
    return f"{site.shown(path)} {3 * n} rows of {', '.join(same)[:60]}"


PARQUET = (
    column_dropped,
    column_values,
    column_type,
    column_ragged,
    column_paths,
    rows_moved,
    footer,
    long_column,
)
