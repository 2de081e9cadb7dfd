"""SIGKILL of a worker or of a whole build, at moments that a seed chooses: the end is the uninterrupted one."""

import json
import random
import shutil
from pathlib import Path

from tests.kits.fault_kit import Corpus, Moment, Repeats, Tally, Whole, assert_same_and_once, errors
from tests.kits.patience import PATIENCE_S

KINDS = {
    "torn": "a worker killed amid a write",
    "worker": "a worker killed",
    "group": "a whole build killed",
}
MOST_BUILDS = 6  # for each kill wanted: a build may come to its end before its moment


def test_killed_at_random_moments(
    corpus: Corpus, whole: Whole, tally: Tally, kills: int, seed: int, tmp_path: Path
):
    rng = random.Random(seed)
    mark = tmp_path / "mark"
    num_done = 0
    builds = 0
    while num_done < kills:
        workspace = tmp_path / f"workspace{builds}"
        repeats = Repeats()
        struck: list[str] = []
        while True:
            builds += 1
            assert builds < MOST_BUILDS * kills + 20
            if num_done < kills:
                moment = Moment.choose(rng, tuple(KINDS)[num_done % len(KINDS)])
                env = moment.environment(workspace, mark)
            else:
                env = {}
                mark.unlink(missing_ok=True)
            with corpus.building(workspace, **env) as build:
                _, output = build.communicate(timeout=PATIENCE_S)
            if not mark.exists():
                break
            kill_mark = json.loads(mark.read_text())
            kind = KINDS[moment.kill]
            struck.append(kind)
            tally.add(kind, tried=1)
            tally.moments[kill_mark["what"]] += 1
            num_done += 1
            assert build.returncode != 0, f"a success after a kill {kill_mark}"
            assert errors(workspace) == [], f"after a kill {kill_mark}"
            repeats.note(workspace)
        assert build.returncode == 0, output
        assert_same_and_once(
            workspace, whole, repeats, tally, struck[-1] if struck else KINDS["worker"]
        )
        for kind in struck:
            tally.add(kind, recovered=1)
        shutil.rmtree(workspace)
