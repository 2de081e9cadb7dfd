"""Questions of a corpus in SQL, and a list of episodes to look at.

    .venv/bin/python docs/examples/ask_the_corpus.py [--workspace workspace] [--out to_look_at.csv]

`warehouse.connect` opens the corpus for reading: a DuckDB connection with every table and view that
`proccorpus show schema` lists. More questions: docs/sql.md.
"""

import argparse
from pathlib import Path

import warehouse

QUESTIONS = {
    "What is there?": """
        SELECT dataset, episodes, ok, round(hours, 2) AS hours FROM coverage ORDER BY dataset""",
    "How do runs of each task end?": """
        SELECT task, count(*) AS runs, count_if(success) AS succeeded, count_if(NOT success) AS failed
        FROM episodes WHERE status = 'ok' GROUP BY task ORDER BY failed DESC, task""",
    "Which steps take longest?": """
        SELECT name, count(*) AS segments, round(avg((end_frame - start_frame) / e.fps), 2) AS seconds
        FROM active_segments s JOIN episodes e USING (dataset, episode_index)
        GROUP BY name HAVING count(*) > 1 ORDER BY seconds DESC LIMIT 5""",
    "How far do failed runs get?": """
        SELECT e.task, round(avg(q.end_progress), 2) AS progress_at_the_end, count(*) AS runs
        FROM episodes e JOIN label_quality q USING (dataset, episode_index)
        JOIN active_runs a USING (dataset, episode_index, label_run)
        WHERE NOT e.success GROUP BY e.task ORDER BY 2""",
}
TO_LOOK_AT = "SELECT dataset, episode_index, why FROM review_queue ORDER BY score DESC, dataset, episode_index LIMIT 20"


def main() -> None:
    said = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    said.add_argument("--workspace", type=Path, default=Path("workspace"))
    said.add_argument("--out", type=Path, default=Path("to_look_at.csv"))
    asked = said.parse_args()
    with warehouse.connect(asked.workspace) as corpus:
        for question, sql in QUESTIONS.items():
            print(question)
            print(corpus.sql(sql))
        worst = corpus.sql(TO_LOOK_AT).df()
    worst.to_csv(asked.out, index=False)
    print(f"{len(worst)} labels to look at first: {asked.out}")


if __name__ == "__main__":
    main()
