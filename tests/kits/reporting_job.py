"""A training job in small: reports through Pipes as `proccorpus train` does, then ends as its recipe says."""

import os
import subprocess
import sys
import time

from dagster_pipes import open_dagster_pipes

recipe = sys.argv[sys.argv.index("--recipe") + 1]
print("starting", recipe, "on", os.environ.get("SLURM_JOB_ID", "this machine"), flush=True)
with open_dagster_pipes() as pipes:
    pipes.log.info("step 1 of 2: loss 0.7")
    if recipe == "hangs":
        child = subprocess.Popen(["sleep", "1000"])
        print("pids", os.getpid(), child.pid, flush=True)
        time.sleep(1000)
    if recipe == "fails":
        print("error: the loss is nan at step 1: lower lr in the recipe", flush=True)
        print("torchrun: a worker has failed\n" * 100, flush=True)
        sys.exit(1)
    if recipe != "silent":
        pipes.report_asset_materialization(metadata={"final_loss": 0.5}, data_version="v1")
print("done", flush=True)
