"""What `demo` and `build` do on a terminal: progress bars, a summary, errors for people."""

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from annotate.signal_report import lag_span
from annotate.signal_report import line as signal_line
from cli.options import AS_JSON, DONE, FAILED, PARTIAL, USAGE, VERBOSE, note
from cli.output import print_json, progress, show
from cli.status import show_status, status_rows
from core.logs import about, is_json
from core.paths import Workspace
from core.values import imported
from ingest.reasons import REASONS
from ingest.signals.survey import findings_of
from pipeline.build import BuildListener, BuildReport, run_build
from pipeline.config import DatasetBuild
from pipeline.stage import StageMoment, StepFailure
from pipeline.stages import Step
from warehouse.lake import Lake
from warehouse.lake.acceptances import in_words, open_faults
from warehouse.lake.references import advice, sentences
from warehouse.lake.stored import gate_counts, lags_by_dataset, signals_by_dataset


def build_all(
    space: Workspace,
    builds: Sequence[DatasetBuild],
    workers: int | None,
    *,
    update: bool = False,
    events: Path | None = None,
    accept_changes: bool = False,
    asked_code: int = USAGE,
) -> int:
    """Run a build with a progress bar, print a summary; returns the exit code.

    3 when all was built but datasets whose source is out of reach, 1 when a step failed or nothing
    is usable, `asked_code` when a source changed so much that a person has to accept it. Raises
    SourceError before anything is written. `accept_changes`: as for `run_build`. `events`: for
    programs that started it, a file that gets lines of JSON: {"event": "plan", "stages": 12}, so
    many stages of chunks are to be made, each a row of `stage_runs` once it is done; {"event":
    "end", "exit_code": 0}, missing where it broke off.
    """
    with progress() as show_progress:
        show_progress("sources", detail="looked at and listed")
        listener = ProgressInTerminal(show_progress, events)
        report = run_build(
            space, builds, workers, listener, update=update, accept_changes=accept_changes
        )
    lake = listener.lake
    names = [build.name for build in builds]

    # What was done, and what the datasets hold now
    with lake.reading():
        rows = [row for row in status_rows(lake) if row["dataset"] in names]
        if AS_JSON.get():
            print_json(
                {"stages_run": len(report.done), "up_to_date": report.up_to_date, "datasets": rows}
            )
        else:
            _show_built(lake, report, names, rows)
            for name in names:
                _show_asked(lake, report, name)

    for failure in report.failed:
        _print_failure(failure)
    is_usable = any(row["ok"] for row in rows)
    if not report.failed and not is_usable:
        print(
            f"error: no usable episode; reasons: proccorpus show quarantine --workspace {space.root}",
            file=sys.stderr,
        )
    if any(failure.asks for failure in report.failed) and report.is_partial:
        code = asked_code
    elif report.is_partial and is_usable:
        code = PARTIAL
    else:
        code = FAILED if report.failed or not is_usable else DONE
    _add_event(events, {"event": "end", "exit_code": code})
    return code


def _show_built(lake: Lake, report: BuildReport, names: Sequence[str], rows: list[dict]) -> None:
    """How much was done, and what is known of each dataset now, a row of `status_rows` each."""
    if report.done:
        print(f"{len(report.done)} stages run, {report.up_to_date} were up to date.", flush=True)
    elif not report.failed:
        print(
            f"Everything is up to date ({report.up_to_date} stages): nothing was done again.",
            flush=True,
        )
    show_status(rows)
    statements = _signals(lake, names)
    for name, counts in gate_counts(lake.con).items():
        statements += [(name, text) for text in counts.sentences()]
    statements += sentences(lake).items()
    statements += [
        (name, f"checks found faults: {in_words(counts)}")
        for name, counts in open_faults(lake).items()
    ]
    statements += advice(lake)
    native = [n for n, b in report.builds.items() if b.stated_annotator == "native"]
    statements += [
        (n, f"{episodes} episodes bring no usable steps: motion labels them, not native")
        for n, episodes in (lake.rows(WITHOUT_STEPS) if native else ())
        if n in native
    ]
    sentence = (
        "the source brings its own steps, so they are its labels; --annotator motion: without them"
    )
    statements += [
        (n, sentence)
        for n, b in report.builds.items()
        if (b.stated_annotator, b.annotator) == ("auto", "native")
    ]
    for name, text in statements:
        if name in names:
            print(f"{name}: {text}")


# By dataset the episodes that the annotator native leaves to motion
WITHOUT_STEPS = """
SELECT dataset, count(DISTINCT episode_index) FROM findings
WHERE (stage, severity) = ('segments', 'warning') AND reason IN ('bad_steps', 'no_steps') GROUP BY 1"""


def _add_event(events: Path | None, event: dict[str, Any]) -> None:
    if events is not None:
        with events.open("a") as f:
            f.write(json.dumps(event) + "\n")


def _signals(lake: Lake, names: Sequence[str]) -> list[tuple[str, str]]:
    """Lines on the grippers and hands of each dataset, with the remedy if something is wrong."""
    signals = signals_by_dataset(lake.con)
    lags = lags_by_dataset(lake.con)
    # Compared as a row: DuckLake looks through the statistics of all files for a condition of a column
    missing = dict(
        lake.rows("SELECT dataset, detail FROM findings WHERE (reason, 0) = ('no_gripper', 0)")
    )
    statements: list[tuple[str, str]] = []
    for name in names:
        of_dataset = lags.get(name, [])
        lines = []
        for signal in signals.get(name, []):
            lines.append(signal_line(signal, of_dataset))
            lines += [
                f"{finding.reason}: {REASONS[finding.reason].remedy}"
                for finding in findings_of([signal])
            ]
        if name in missing:
            lines.append(f"no_gripper: {missing[name]}: {REASONS['no_gripper'].remedy}")
        elif name not in signals:
            lines.append(
                "no gripper and no hand: no rows of state or action, or its registry entry says so"
            )
        if state_lag := lag_span("state", of_dataset):
            lines.append(f"the state is {state_lag} the pictures: labels are corrected by it")
        statements += [(name, line) for line in lines]
    return statements


class ProgressInTerminal(BuildListener):
    """Shows how many episodes went through each stage, and writes events for the program that
    started the build."""

    lake: Lake

    def __init__(self, report: Callable[..., None], events: Path | None) -> None:
        self.report = report
        self.events = events
        self.done = Counter[str]()  # episodes by stage
        self.to_do = Counter[str]()
        # By stage and chunk, of stages that go on
        self.going = defaultdict[str, Counter[tuple[str, int]]](Counter)
        self.episodes: dict[tuple[str, int], int] = {}
        self.frames_per_episode = 0.0

    def began(self, lake: Lake, builds: Collection[DatasetBuild]) -> None:
        self.lake = lake

    def planned(self, num_stages: int, steps: Sequence[Step]) -> None:
        _add_event(self.events, {"event": "plan", "stages": num_stages})
        if steps:
            rows = self.lake.rows(
                "SELECT dataset, chunk, count(*), sum(sum(num_rows)) OVER () / sum(count(num_rows)) OVER () "
                "FROM episode_facts GROUP BY ALL"
            )
            for dataset, chunk, number, frames in rows:
                self.episodes[dataset, chunk] = number
                self.frames_per_episode = float(frames or 0)
        for step in steps:
            self.to_do[step.stage.name] += self.episodes.get((step.dataset, step.chunk or 0), 0)
        self.report("sources", 1, 1)

    def note(self, text: str) -> None:
        note(f"note: {text}")

    def moment(self, moment: StageMoment) -> None:
        stage = moment.stage
        chunk = (moment.dataset, moment.chunk)
        self.going[stage][chunk] = moment.episodes
        if moment.duration_s is not None:
            self.done[stage] += self.episodes.get(chunk, 0)
            if is_json():
                with about(dataset=moment.dataset, chunk=moment.chunk, stage=stage):
                    note(f"{stage} ended after {moment.duration_s:.3f} s")
        episodes = self.done[stage] + self.going[stage].total()
        self.report(stage, episodes, self.to_do[stage] or None, "episodes", self.frames_per_episode)


def _show_asked(lake: Lake, report: BuildReport, dataset: str) -> None:
    """The calls of a build to a model; nothing where none was sent."""
    of_dataset = [reports for reports in report.done if reports.run.dataset == dataset]
    # A stage that failed may have asked, too
    was_asked = any("answered_before" in reports.numbers for reports in of_dataset)
    if not was_asked and not report.failed:
        return
    rows = imported("pipeline.prediction:asked_rows")(
        lake, "dataset = ? AND build_id = ?", [dataset, report.build_id]
    )
    if rows:
        stored = sum(int(reports.numbers.get("answered_before", 0)) for reports in of_dataset)
        note = f" ({stored} answers were there before and were not asked for)" if stored else ""
        print(f"What the model was asked about {dataset}{note}:", flush=True)
        show(rows)


def _print_failure(failure: StepFailure) -> None:
    message = f"error: {failure.message}"
    if not failure.asks:
        chunk = "" if failure.chunk is None else f" chunk {failure.chunk}"
        place = f"{failure.stage} of {failure.dataset}{chunk}"
        message = (
            f"error: {place} failed: {failure.message}; the rest was built, run again to retry"
        )
    with about(dataset=failure.dataset, chunk=failure.chunk, stage=failure.stage):
        print(message, file=sys.stderr)
        if VERBOSE.get():
            print(failure.trace, file=sys.stderr)
