#!/bin/bash
# Stands for sbatch, squeue, sacct, scancel, srun and scontrol, by the name it is called under. Jobs really run, here.
# State is kept in $SLURM_STANDIN: <n>.pid while it runs, <n>.code afterwards, <n>.asked after the first question,
# <n>.again until a job that is to be requeued has ended. Where there is `limited`, a job that has written "waiting" gets
# the signal that comes before its time limit.
set -u
state=$SLURM_STANDIN
job() { while [ $# -gt 0 ]; do [ "$1" = --jobs ] && { echo "$2"; return; }; shift; done; }
case $(basename "$0") in
sbatch)
    [ -e "$state/down" ] && { echo "sbatch: error: Batch job submission failed: Unable to contact slurm controller" >&2; exit 1; }
    n=$(($(ls "$state" | grep -c pid) + 1))
    out=$(sed -n 's/^#SBATCH --output=//p' "$2")
    (
        restarts=0
        while true; do
            SLURM_RESTART_COUNT=$restarts SLURM_JOB_ID=$n SLURM_JOB_NODELIST=node[1-2] setsid bash "$2" >>"$out" 2>&1 &
            pid=$!
            echo $pid >"$state/$n.pid"
            if [ -e "$state/limited" ]; then
                while ! grep -q waiting "$out" && kill -0 $pid; do sleep 0.05; done
                rm "$state/limited"
                kill -USR1 $pid
            fi
            wait $pid
            code=$?
            [ -e "$state/$n.again" ] || break
            rm "$state/$n.again"
            restarts=$((restarts + 1))
        done
        echo $code >"$state/$n.code"
    ) </dev/null >/dev/null 2>&1 &
    while [ ! -s "$state/$n.pid" ]; do sleep 0.01; done
    echo "$n;cluster"
    ;;
squeue)
    n=$(job "$@")
    [ -e "$state/$n.asked" ] || { touch "$state/$n.asked"; echo "PENDING Priority"; exit; }
    [ -e "$state/$n.code" ] || { echo "RUNNING None"; exit; }
    echo "slurm_load_jobs error: Invalid job id specified" >&2
    exit 1
    ;;
sacct)
    n=$(job "$@")
    [ -e "$state/$n.counted" ] || { touch "$state/$n.counted"; exit; } # the accounting is a little behind
    code=$(cat "$state/$n.code")
    [ -e "$state/$n.cancelled" ] && { echo "CANCELLED by 1000|0:15"; exit; }
    [ "$code" = 0 ] && echo "COMPLETED|0:0" || echo "FAILED|$code:0"
    ;;
scancel)
    touch "$state/$1.cancelled"
    kill -TERM -- "-$(cat "$state/$1.pid")"
    ;;
srun)
    while [[ $1 == --* ]]; do shift; done
    exec "$@"
    ;;
scontrol)
    [ "$1" = requeue ] || { printf 'node1\nnode2\n'; exit; }
    touch "$state/$2.again"
    kill -TERM -- "-$(cat "$state/$2.pid")"
    ;;
esac
