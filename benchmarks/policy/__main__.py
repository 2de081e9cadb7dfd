"""Do better labels make better robots? Cloned behaviour, each frame weighted by the progress that follows it.

    make policy                                                   # everything, and the environment that it needs
    .venv-policy/bin/python -m benchmarks.policy [--out FOLDER] [--workers 2] [--short]
    make policy POLICY='--labels docs/data/policy.json'           # what needs no model; other rows are this file's
    .venv/bin/python -m benchmarks.policy --table docs/data/policy.json

Scripted demonstrations of mixed quality in Meta-World become a LeRobot dataset, which the product labels, trains a
`laptop` on and exports for RA-BC; policies cloned with each kind of weights act from held-out start states. Then
several runs of a policy are chosen among by the live reward. What is done is kept in the folder and not done again;
every run's outcome is there, and log.jsonl says how long each part took. --short: one task, one seed, three starts.
"""

import json
import os
from pathlib import Path

from benchmarks.harness import options
from benchmarks.policy.protocol import SHORT, Protocol
from benchmarks.policy.report import print_tables, report, report_by_labels


def main() -> None:
    folder = Path("workspace/policy")
    args = options(__doc__, out=folder, workers=2, short=False, labels=None, table=None)
    if args.table:
        print_tables(json.loads(args.table.read_text()))
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from benchmarks.policy.parts import Work, run  # what --table does without

    work = Work(args.out.resolve(), SHORT if args.short else Protocol())
    run(work, args.workers, by_labels_alone=args.labels is not None)
    if args.labels:
        figures = report_by_labels(work.folder, work.protocol, json.loads(args.labels.read_text()))
    else:
        figures = report(work.folder, work.protocol)
    work.keep(work.folder / "policy.json", figures)
    print_tables(figures)


if __name__ == "__main__":
    main()
