"""The pages of a report: Markdown and HTML, and the pictures beside them."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from core.figures import Figure, render
from core.files import write_file
from core.values import shown
from eval.report.figures import bars_figure, calibration_figure, confusion_figure, curves_figure, examples_figure
from eval.report.tables import Report, difference_rows, different, limits, score_rows, worst_episodes
from eval.scoring.scored import Evaluated

PICTURE_BYTES = 300_000
EXPLAINED = (
    "Means over episodes, except score_error and ref_error, which are over answers; in brackets the 95 % bootstrap "
    "interval over episodes. Coverage is the share of answers that could be read; those that could not count as wrong "
    "as can be. The clock knows how long the run will be and the visual distance sees its last picture: both know more "
    "than the model does; the running clock and the reference clock do not. docs/evaluation.md says what metrics are."
)
NOWHERE = "In no slice of this table."
WEAK_TITLE = "Where it is no better than what stands beside it"
TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=select_autoescape(("html.jinja",)),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def write_report(folder: Path, report: Report) -> Path:
    """report.md, report.html and their pictures in a folder; returns the HTML file."""
    captioned = pictures(report)
    for name, (_, picture) in captioned.items():
        write_file(folder / name, picture)
    told = {
        "report": report,
        "sections": _sections(report),
        "explained": EXPLAINED,
        "weak_title": WEAK_TITLE,
        "weak": limits(report) or [NOWHERE],
        "captions": {name: caption for name, (caption, _) in captioned.items()},
    }
    for name in ("report.md", "report.html"):
        write_file(folder / name, shown(TEMPLATES.get_template(f"{name}.jinja").render(told)).encode())
    return folder / "report.html"


def pictures(report: Report) -> dict[str, tuple[str, bytes]]:
    """(caption, picture) by file name: the matrix where there is one, else of the model's first benchmark."""
    figures: dict[str, tuple[str, Figure | None, str]] = {}
    title = "Instruction x video: progress at the end of finished runs, under each instruction"
    if report.own:
        figures["confusion.png"] = (title, confusion_figure(report.own[0]), report.own[0].benchmark)
    # The model's first entry with progress over time, if that holds any answer
    own = next((entry for entry in report.own if entry.scored.series is not None), None)
    if own and own.scored.series and len(own.scored.series.runs.target):
        figures |= _figures_over_time(report, own)
    if report.examples:
        figures["examples.png"] = ("What was shown", examples_figure(report.examples), report.own[0].benchmark)
    captioned = {}
    for name, (caption, figure, benchmark) in figures.items():
        if figure is not None:
            captioned[name] = (f"{caption} ({benchmark})", render(figure, PICTURE_BYTES))
    return captioned


def _figures_over_time(report: Report, own: Evaluated) -> dict[str, tuple[str, Figure | None, str]]:
    """(caption, figure, benchmark) by file name, of an entry with progress over time."""
    figures: dict[str, tuple[str, Figure | None, str]] = {
        "curves.png": ("Progress over time", curves_figure(report, own, different(own)), own.benchmark),
        "calibration.png": ("Calibration: where it says x, what is the label?", calibration_figure(own), own.benchmark),
        "datasets.png": ("By dataset", bars_figure(report, own), own.benchmark),
        "parts.png": ("By part", bars_figure(report, own, "part"), own.benchmark),
    }
    worst = [episode for episode, _ in worst_episodes(own)]
    if worst:
        figures["worst.png"] = ("The worst episodes", curves_figure(report, own, worst), own.benchmark)
    return figures


def _sections(report: Report) -> list[tuple[str, list[dict]]]:
    """Headed tables, empty ones left out."""
    worst = []
    for own in report.own[:1]:
        for number, error in worst_episodes(own):
            name = " ".join(own.scored.episodes[number].key)
            worst.append({"benchmark": own.benchmark, "episode": name, "error": f"{error:.3f}"})
    tables = [
        ("Scores", score_rows(report.entries, report.parts)),
        ("Against what stands beside it, episode by episode", difference_rows(report)),
        ("The worst episodes", worst),
    ]
    return [(title, rows) for title, rows in tables if rows]
