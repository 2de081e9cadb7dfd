"""Labels of real robots are nearer to what people saw than the clock is, where the shared datasets lie beside."""

import numpy as np
import pytest

from annotate.config import MotionConfig
from annotate.motion.annotator import annotate
from benchmarks.harness import SHARED
from benchmarks.label_truth import TRUTH, real_sets, transferred
from core.paths import Workspace


@pytest.mark.slow
@pytest.mark.parametrize("name", ["so101_bimanual_cloth", "gr1_pick_place"])
def test_labels_are_better_than_the_clock_and_better_still_where_one_is_shown(name, tmp_path):
    known_runs = real_sets(Workspace(tmp_path), SHARED / "data", TRUTH, [name])[name]
    labels = annotate([k.signals for k in known_runs], MotionConfig())
    clock = np.mean([k.error(np.linspace(0, 1, len(k.signals))) for k in known_runs])
    alone = np.mean([k.error(label.progress) for k, label in zip(known_runs, labels, strict=True)])
    error_of_one = np.mean(
        [k.error(t.label.progress) for k, t in transferred(known_runs, 1) if t.label]
    )
    assert alone < clock / 2
    assert error_of_one < 0.03
