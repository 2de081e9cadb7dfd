"""SIGKILL of a worker or of a whole build, at moments that a seed chooses: the end is the uninterrupted one."""

import json
import random
import shutil
from pathlib import Path

from tests.kits.cli_kit import write_configs
from tests.kits.fault_kit import Corpus, Moment, Repeats, Tally, Whole, assert_same_and_once, errors
from tests.kits.fuzz_datasets import EXCESSES, write_excess
from tests.kits.lerobot_writer import write_v2
from tests.kits.patience import PATIENCE_S
from tests.kits.spoil import write_outside

KINDS = {
    "torn": "a worker killed amid a write",
    "worker": "a worker killed",
    "group": "a whole build killed",
}
MOST_BUILDS = 6  # for each kill wanted: a build may come to its end before its moment
# Of each format, with what a limit stops and what is left of the dataset
OVER = ("v2_rows", "v3_dictionary", "video_frames", "hdf5_rows", "rlds_keys", "tar_size")
OVER_LIMITS = "datasets over a limit, killed"


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


def killed_until_whole(
    corpus: Corpus,
    whole: Whole,
    code: int,
    tally: Tally,
    kills: int,
    seed: int,
    folder: Path,
    name: str = "",
) -> None:
    """Builds are killed until one comes to its end, as often as is wanted; `code` is that of an uninterrupted one,
    `name` what the kills are counted as."""
    rng = random.Random(seed)
    mark = folder / "mark"
    num_done = 0
    builds = 0
    while num_done < kills:
        workspace = folder / f"workspace{builds}"
        repeats = Repeats()
        struck: list[str] = []
        while True:
            builds += 1
            assert builds < MOST_BUILDS * kills + 20
            env = {}
            mark.unlink(missing_ok=True)
            if num_done < kills:
                moment = Moment.choose(rng, tuple(KINDS)[num_done % len(KINDS)])
                env = moment.environment(workspace, mark)
            with corpus.building(workspace, **env) as build:
                _, output = build.communicate(timeout=PATIENCE_S)
            if not mark.exists():
                break
            kill_mark = json.loads(mark.read_text())
            struck.append(name or KINDS[moment.kill])
            tally.add(struck[-1], tried=1)
            tally.moments[kill_mark["what"]] += 1
            num_done += 1
            assert build.returncode != 0, f"a success after a kill {kill_mark}"
            assert errors(workspace) == [], f"after a kill {kill_mark}"
            repeats.note(workspace)
        assert (build.returncode, "Traceback" in output) == (code, False), output
        fault = struck[-1] if struck else name or KINDS["worker"]
        assert_same_and_once(workspace, whole, repeats, tally, fault)
        for kind in struck:
            tally.add(kind, recovered=1)
        shutil.rmtree(workspace)


def test_killed_at_random_moments(corpus, whole, tally, kills, seed, tmp_path):
    killed_until_whole(corpus, whole, 0, tally, kills, seed, tmp_path)


def test_builds_of_datasets_over_a_limit_are_killed(tally, kills, seed, tmp_path):
    """The end is the uninterrupted one, and the dataset beside them is labelled."""
    corpus = corpus_over_limits(tmp_path / "corpus")
    untouched = corpus.build(tmp_path / "untouched")
    assert "Traceback" not in untouched.stderr
    assert errors(tmp_path / "untouched", hashes=True) == []
    whole = Whole.of(tmp_path / "untouched")
    killed_until_whole(
        corpus,
        whole,
        untouched.returncode,
        tally,
        max(1, kills // 4),
        seed + 7,
        tmp_path,
        OVER_LIMITS,
    )
