"""The job `export`: a step per chunk, and the same bytes as the command's."""

import dagster as dg
import pytest

from assets.defs.resources import CorpusResource
from core.errors import UserError
from tests.kits.files import hashes_of
from tests.kits.made_corpus import Made
from tests.kits.staleness import definitions
from warehouse.exports import EXPORT_KINDS
from warehouse.exports.export import PARTIAL
from warehouse.exports.options import Selection
from warehouse.lake import Lake

ALL = Selection(allow=("unknown",))


def run(made_corpus: Made, **config: object) -> dg.ExecuteInProcessResult:
    return (
        definitions()
        .resolve_job_def("export")
        .execute_in_process(
            resources={"corpus": CorpusResource(root=str(made_corpus.space.root))},
            run_config=config,
            raise_on_error=False,
        )
    )


def steps(result: dg.ExecuteInProcessResult, op: str) -> list[dg.DagsterEvent]:
    return [e for e in result.all_events if e.is_step_success and (e.step_key or "").startswith(op)]


@pytest.mark.parametrize(
    "kind",
    [
        "lerobot",
        pytest.param("datasets", marks=pytest.mark.slow),
        pytest.param("rerun", marks=pytest.mark.long),
    ],
)
def test_a_step_per_chunk_and_the_bytes_of_the_command(made, tmp_path, kind):
    lake = Lake(made.space, read_only=True)
    EXPORT_KINDS[kind].export(lake, ALL, tmp_path / "plain")
    result = run(made, kind=kind, out=str(tmp_path / "job"), allow_licences=["unknown"])
    assert result.success
    assert len(steps(result, "export_chunk")) == 3
    written = hashes_of(tmp_path / "job")
    plain = hashes_of(tmp_path / "plain")
    if kind == "rerun":  # which writes ids and times of its own
        written = dict.fromkeys(written, "")
        plain = dict.fromkeys(plain, "")
    assert written == plain
    [event] = result.get_asset_materialization_events()
    assert event.asset_key == dg.AssetKey(["exports", kind])
    assert run(made, kind=kind, out=str(tmp_path / "job"), allow_licences=["unknown"]).success, (
        "nothing to do"
    )


def test_chunks_are_written_side_by_side(made, tmp_path):
    kind = EXPORT_KINDS["llamafactory"]
    out = tmp_path / "out"
    lake = Lake(made.space, read_only=True)
    second_lake = Lake(made.space, read_only=True)
    with pytest.raises(UserError, match="does not hold the export that this is a part of"):
        kind.open(lake, ALL).export_chunk(out, ("tiny", 0))
    chunks = kind.open(lake, ALL).begin(out)
    assert chunks == [("tiny", 0), ("tiny", 1), ("tiny", 2)]
    half_written = tmp_path / "out/train/part-00009.json"
    assert kind.open(second_lake, ALL).export_chunk(out, chunks[2]) > 0
    half_written.parent.mkdir(exist_ok=True)
    half_written.write_text("[")
    assert kind.open(lake, ALL).export_chunk(out, chunks[0]) > 0
    assert half_written.exists(), "it may be another's"
    assert kind.open(second_lake, ALL).export_chunk(out, chunks[0]) == 0
    assert (tmp_path / "out" / PARTIAL).exists()
    kind.export(lake, ALL, out)
    assert not half_written.exists()
    kind.export(lake, ALL, tmp_path / "plain")
    assert hashes_of(tmp_path / "out") == hashes_of(tmp_path / "plain")
    assert kind.open(lake, ALL).export_chunk(out, chunks[1]) == 0, "the export is whole"
