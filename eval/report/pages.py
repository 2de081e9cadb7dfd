"""The pages of a report: Markdown and HTML, and the pictures beside them."""

import html
from collections.abc import Iterable, Mapping
from pathlib import Path

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
STYLE = (
    "body{font:15px/1.4 system-ui,sans-serif;margin:2em auto;max-width:80em;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums}.wide{overflow-x:auto}"
    "td,th{padding:.25em .7em;text-align:left;border-bottom:1px solid #ddd;white-space:nowrap}th{border-color:#888}"
    "tr.own td{font-weight:600;background:#faf3f4}img{max-width:100%}h2{margin-top:1.8em}"
)


def write_report(folder: Path, report: Report) -> Path:
    """report.md, report.html and their pictures in a folder; returns the HTML file."""
    captioned = pictures(report)
    for name, (_, picture) in captioned.items():
        write_file(folder / name, picture)
    captions = {name: caption for name, (caption, _) in captioned.items()}
    write_file(folder / "report.md", shown(markdown(report, captions)).encode())
    write_file(folder / "report.html", shown(_html(report, captions)).encode())
    return folder / "report.html"


def pictures(report: Report) -> dict[str, tuple[str, bytes]]:
    """(caption, picture) by file name: the matrix where there is one, else of the model's first benchmark."""
    figures: dict[str, tuple[str, Figure | None, str]] = {}
    title = "Instruction x video: progress at the end of finished runs, under each instruction"
    if report.own:
        figures["confusion.png"] = (title, confusion_figure(report.own[0]), report.own[0].benchmark)
    own = _with_answers(report)
    if own is not None:
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


def _with_answers(report: Report) -> Evaluated | None:
    """The model's first entry with progress over time; None also where that one holds no answer."""
    for entry in report.own:
        series = entry.scored.series
        if series is not None:
            return entry if len(series.runs.target) else None
    return None


def _sections(report: Report) -> list[tuple[str, list[dict]]]:
    """Headed tables, empty ones left out."""
    tables = [
        ("Scores", score_rows(report.entries, report.parts)),
        ("Against what stands beside it, episode by episode", difference_rows(report)),
        ("The worst episodes", _worst_rows(report)),
    ]
    return [(title, rows) for title, rows in tables if rows]


def _worst_rows(report: Report) -> list[dict]:
    """The worst episodes of the first benchmark."""
    if not report.own:
        return []
    own = report.own[0]
    rows = []
    for number, error in worst_episodes(own):
        key = own.scored.episodes[number].key
        rows.append({"benchmark": own.benchmark, "episode": " ".join(key), "error": f"{error:.3f}"})
    return rows


def markdown(report: Report, captions: Mapping[str, str]) -> str:
    """The report as Markdown; `captions`: of its pictures, by file name."""
    lines = [f"# Evaluation of {report.model}", "", *report.notes, ""]
    for title, rows in _sections(report):
        lines += [f"## {title}", "", *_markdown_table(rows), ""]
    lines += [EXPLAINED, "", f"## {WEAK_TITLE}", ""]
    lines += [f"- {sentence}" for sentence in limits(report) or [NOWHERE]]
    for name, caption in captions.items():
        lines += ["", f"## {caption}", "", f"![{caption}]({name})"]
    return "\n".join(lines) + "\n"


def _markdown_table(rows: list[dict]) -> list[str]:
    columns = list(rows[0])
    lines = [_markdown_row(columns), "|" + "---|" * len(columns)]
    for row in rows:
        lines.append(_markdown_row([str(row[column]).replace("|", "\\|") for column in columns]))
    return lines


def _markdown_row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _html(report: Report, captions: Mapping[str, str]) -> str:
    safe = html.escape
    body = [f"<h1>Evaluation of {safe(report.model)}</h1>", *_elements("p", report.notes)]

    # The tables, with an explanation below the scores
    for title, rows in _sections(report):
        body.append(f"<h2>{safe(title)}</h2><div class=wide>{_html_table(rows, report.model)}</div>")
        if title == "Scores":
            body.append(f"<p>{safe(EXPLAINED)}</p>")
    weak = "".join(_elements("li", limits(report) or [NOWHERE]))
    body.append(f"<h2>{WEAK_TITLE}</h2><ul>{weak}</ul>")

    for name, c in captions.items():
        body.append(f"<h2>{safe(c)}</h2><img src='{safe(name)}' alt='{safe(c)}'>")
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>{safe(report.model)}</title>"
    return f"{head}<style>{STYLE}</style>{''.join(body)}\n"


def _elements(tag: str, texts: Iterable[object]) -> list[str]:
    """Texts, escaped, as an element each."""
    return [f"<{tag}>{html.escape(str(text))}</{tag}>" for text in texts]


def _html_table(rows: list[dict], model: str) -> str:
    """A table; the rows of the report's own model stand out."""
    lines = ["<tr>", *_elements("th", rows[0]), "</tr>"]
    for row in rows:
        lines.append("<tr class=own>" if row.get("model") == model else "<tr>")
        lines += _elements("td", row.values())
        lines.append("</tr>")
    return f"<table>{''.join(lines)}</table>"
