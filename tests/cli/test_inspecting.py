"""What `inspect` says of the parts of a source."""

from pathlib import Path

import h5py
import numpy as np

from tests.kits.cli_kit import proccorpus
from tests.kits.hdf5_writer import film
from tests.kits.lerobot_writer import write_v2


def test_no_findings_is_said_only_where_all_is_understood(tmp_path: Path) -> None:
    root = write_v2(tmp_path / "set", [6, 7])
    plain = proccorpus("inspect", root, cwd=tmp_path)
    assert "observation.state (3 float32)" in plain.out
    assert "part_not_used" not in plain.out
    (root / "quux_readings.bin").write_bytes(b"x")
    result = proccorpus("inspect", root, cwd=tmp_path)
    assert "not used      file quux_readings.bin: nothing names it" in result.out
    assert "part_not_used" in result.out
    assert "No findings" not in result.out
    parts = proccorpus("inspect", root, "--format", "json", cwd=tmp_path).json["parts"]
    assert ("file", "quux_readings.bin", "unknown") in [
        (p["kind"], p["name"], p["status"]) for p in parts
    ]
    whole = proccorpus("inspect", root, "--full", cwd=tmp_path)
    assert "num_times" in whole.out.replace("num_\ntimes", "num_times")


def test_rows_that_are_not_read_are_not_called_missing(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "run.hdf5", "w") as file:
        file["quux_forces"] = np.random.default_rng(0).normal(size=(6, 6))
        file["cam_front"] = film(0, 0, 6)
    output = proccorpus("inspect", tmp_path, cwd=tmp_path).out
    assert "there are no rows of state or action" not in output
    assert "quux_forces" in output
