"""Actions on the page of an episode: read from the source, with a message where there are none."""

import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from core.paths import Workspace
from pipeline.build import run_build
from tests.kits.made_corpus import build_of
from tests.kits.tiny_lerobot import LENGTHS, make_dataset, rows_path
from tests.kits.visitor import visit

URL = "/episode/tiny/0/actions"


def test_actions_are_those_of_the_source(tmp_path: Path):
    source = make_dataset(tmp_path / "source")
    space = Workspace(tmp_path / "w")
    source_actions = np.linspace(-2, 3, LENGTHS[0] * 2, dtype=np.float32).reshape(-1, 2)
    rows = pq.read_table(rows_path(source, 0))
    pq.write_table(
        rows.append_column("action", pa.array(source_actions.tolist(), pa.list_(pa.float32()))),
        rows_path(source, 0),
    )
    assert run_build(space, [build_of(source)], workers=1).failed == []
    with visit(space) as client:
        assert f'data-from="{URL}"' in client.get("/episode/tiny/0").text
        answer = client.get(URL)
        assert answer.status_code == 200
        assert "-2 to 3" in answer.text
        assert re.findall(r'<span title="([^"]*)">', answer.text) == ["dimension 0", "dimension 1"]
        assert answer.text.count("<polyline") + answer.text.count("<path") >= 2
        assert "the source has none" in client.get("/episode/tiny/1/actions").text
        shutil.rmtree(source)
        reply = client.get("/episode/tiny/0/actions")
        assert reply.status_code == 200
        assert "the actions of tiny 0 cannot be read" in reply.text
        assert "Traceback" not in reply.text
