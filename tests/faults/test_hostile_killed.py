"""Builds of datasets that are over a limit, killed at moments that a seed chooses."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

from tests.kits.cli_kit import write_configs
from tests.kits.fault_kit import Corpus, Moment, Tally, Whole, assert_same_end, errors
from tests.kits.fuzz_datasets import EXCESSES, write_excess
from tests.kits.lerobot_writer import write_v2
from tests.kits.patience import PATIENCE_S
from tests.kits.spoil import write_outside

# Of each format, with what a limit stops and what is left of the dataset
OVER = ("v2_rows", "v3_dictionary", "video_frames", "hdf5_rows", "rlds_keys", "tar_size")
KINDS = ("worker", "group", "torn")
MOST_BUILDS = 6  # for each kill wanted: a build may come to its end before its moment
FAULT = "datasets over a limit, killed"


def corpus_over_limits(folder: Path) -> Corpus:
    """The datasets with an entry of each, beside a sound one."""
    folder.mkdir()
    write_outside(folder / "outside")
    sources = {"sound": write_v2(folder / "sources" / "sound", [6, 7])}
    limits = {"sound": "{}"} | {name: json.dumps(EXCESSES[name].limits) for name in OVER}
    for name in OVER:
        sources[name] = folder / "sources" / name
        write_excess(name, sources[name])
    entry = "source: {}\nannotator: motion\nlimits: {}\n"
    entries = {name: entry.format(source, limits[name]) for name, source in sources.items()}
    return Corpus(write_configs(folder, entries))


def test_builds_of_datasets_over_a_limit_are_killed(
    tally: Tally, kills: int, seed: int, tmp_path: Path
) -> None:
    """The end is the uninterrupted one, and the dataset beside them is labelled."""
    corpus = corpus_over_limits(tmp_path / "corpus")
    rng = random.Random(seed + 7)
    mark = tmp_path / "mark"
    untouched = corpus.build(tmp_path / "untouched")
    assert "Traceback" not in untouched.stderr
    assert errors(tmp_path / "untouched", hashes=True) == []
    whole = Whole.of(tmp_path / "untouched")
    num_done = 0
    builds = 0
    num_wanted = max(1, kills // 4)
    while num_done < num_wanted:
        workspace = tmp_path / f"workspace{builds}"
        struck = 0
        while True:
            builds += 1
            assert builds < MOST_BUILDS * num_wanted + 20
            moment = Moment.choose(rng, KINDS[num_done % len(KINDS)])
            if num_done < num_wanted:
                env: dict[str, Any] = moment.environment(workspace, mark)
            else:
                env = {}
            mark.unlink(missing_ok=True)
            with corpus.building(workspace, **env) as build:
                _, output = build.communicate(timeout=PATIENCE_S)
            if not mark.exists():
                break
            num_done = num_done + 1
            struck = struck + 1
            tally.add(FAULT, tried=1)
            assert build.returncode != 0, f"a success after a kill {mark.read_text()}"
            assert errors(workspace) == []
        assert (build.returncode, "Traceback" in output) == (untouched.returncode, False), output
        tally.add(FAULT, recovered=struck, differences=len(whole.differences(workspace)))
        assert_same_end(workspace, whole)
        shutil.rmtree(workspace)
