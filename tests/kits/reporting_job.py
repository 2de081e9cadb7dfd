"""A training job in small: reports through Pipes as `proccorpus train` does, then ends as its
recipe says."""

import os
import subprocess
import sys
import time
from pathlib import Path

from dagster_pipes import open_dagster_pipes

recipe = sys.argv[sys.argv.index("--recipe") + 1]
print("starting", recipe, "on", os.environ.get("SLURM_JOB_ID", "this machine"), flush=True)
if recipe == "again":
    # The first attempt waits for its end, or ends badly where no such end comes; the second one does what is to do
    attempts_file = Path(os.environ["ATTEMPTS"])
    with attempts_file.open("a") as attempts:
        attempts.write("begun\n")
    if len(attempts_file.read_text().splitlines()) == 1:
        print("waiting", flush=True)
        time.sleep(1000 if "SLURM_JOB_ID" in os.environ else 0)
        sys.exit(1)
if recipe == "together":
    # All ranks add up what they are; the first one reports, as in training
    import torch
    from torch import distributed

    distributed.init_process_group("gloo")
    ranks = torch.tensor([float(distributed.get_rank() + 1)])
    distributed.all_reduce(ranks)
    print(
        f"rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']} met at {os.environ['MASTER_ADDR']}",
        flush=True,
    )
    distributed.destroy_process_group()
    if os.environ["RANK"] != "0":
        sys.exit(0)
    with open_dagster_pipes() as pipes:
        pipes.report_asset_materialization(metadata={"sum": ranks.item()}, data_version="v1")
    sys.exit(0)
with open_dagster_pipes() as pipes:
    pipes.log.info("step 1 of 2: loss 0.7")
    if recipe == "hangs":
        child = subprocess.Popen(["sleep", "300"])
        # One write for one line: without a buffer each argument of print is written alone, and two nodes' lines mix
        os.write(sys.stdout.fileno(), f"pids {os.getpid()} {child.pid}\n".encode())
        time.sleep(300)
    if recipe == "fails":
        print("error: the loss is nan at step 1: lower lr in the recipe", flush=True)
        print("torchrun: a worker has failed\n" * 100, flush=True)
        sys.exit(1)
    if recipe != "silent":
        pipes.report_asset_materialization(metadata={"final_loss": 0.5}, data_version="v1")
print("done", flush=True)
