"""What a job is called, how it is started, and what of its output says what is wrong."""

import pytest
from pydantic import ValidationError

from assets.lib.launch.job import Machines, job_name, torchrun, why


def test_a_job_has_a_name_a_command_and_a_reason() -> None:
    assert job_name("Train", "sim/short.v2", "__") == "train-sim-short-v2"
    assert job_name("x" * 51, "y") == "x" * 51
    assert len(job_name("x" * 60)) == 52
    start = ["python", "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    assert torchrun("python", ["train"], 2) == [*start, "--standalone", "-m", "proccorpus", "train"]
    meeting = ["--nnodes", "3", "--rdzv-backend", "c10d", "--rdzv-endpoint", "a:1", "--rdzv-id", "j"]
    several = torchrun("python", ["train"], 2, 3, "a:1", "j", first=False)
    assert several[:-5] == [*start, *meeting]
    assert several[-5:] == ["--rdzv-conf", "join_timeout=1800,is_host=False", "-m", "proccorpus", "train"]
    assert [why(text) for text in ("a\nerror: b\nc", "a\nb", "")] == ["b", "b", "it has written nothing"]
    assert (Machines().nodes, Machines().gpus_per_node) == (1, 1)
    with pytest.raises(ValidationError):
        Machines(nodes=0)
