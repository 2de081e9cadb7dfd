"""Which states of a corpus the sensor of sources asks a build for."""

from assets.defs.corpus.sensors import _changed
from pipeline.stages import stage_specs
from tests.kits.made_corpus import Made
from warehouse.lake import Lake
from warehouse.lake.outcomes import StatedOutcome, add_outcomes, undo_import


def test_what_people_say_of_outcomes_asks_for_a_build_of_its_own(own: Made):
    """Each state has a value of its own, by which Dagster knows that it was not asked for before."""
    lake = Lake(own.space)
    specs = {"tiny": stage_specs(own.build)}
    fingerprints = {"tiny": own.build.source(own.space.sources).fingerprint()}
    asked = [_changed(lake, specs, fingerprints)]
    import_id, _ = add_outcomes(lake, "tiny", "a.csv", [StatedOutcome(0, True, None, "ada")])
    asked.append(_changed(lake, specs, fingerprints))
    add_outcomes(lake, "tiny", "b.csv", [StatedOutcome(0, False, None, "ada")])
    asked.append(_changed(lake, specs, fingerprints))
    undo_import(lake, import_id, author="ada")
    asked.append(_changed(lake, specs, fingerprints))
    lake.con.close()
    assert asked[0] == {}
    assert [list(changed) for changed in asked[1:]] == [["tiny"]] * 3
    assert asked[2] == asked[3] != asked[1], "the newest counts, and b.csv still says it"
