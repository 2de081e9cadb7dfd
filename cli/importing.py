"""Annotations from other tools.

By itself: what reads their forms is half of what an export would import.
"""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from annotate.imported import FORMS
from cli.lakes import WriteLake
from cli.options import AS_JSON, Facts, command, warn
from core.errors import UserError
from pipeline.imports import import_annotations


@command("import")
def import_labels(
    lake: WriteLake,
    words: Annotated[
        list[str],
        Argument(
            metavar="[FORM] PATH",
            help="A LeRobot folder, a JSON-lines file, a folder of such files, or a form's name and its file.",
        ),
    ],
    name: Annotated[str, Option(help="Dataset of the corpus that the annotations belong to.")],
    form: Annotated[
        str | None,
        Option(help="Which annotations of a LeRobot folder; default: the most detailed."),
    ] = None,
) -> Facts:
    """Import annotations from other tools as a label run of their own. Active labels stay as they
    are."""
    *forms, path = words
    if len(forms) > 1 or (forms and form):
        raise UserError(
            "import takes one form and one path: proccorpus import frame-signals FILE --name DATASET"
        )
    form = next(iter(forms), form)
    if form not in (None, *FORMS):
        raise UserError(f"there is no form {form}: known are {', '.join(FORMS)}")
    imported = import_annotations(lake, Path(path), name, form)
    warn(imported.refused, "left out")
    refused = list(imported.refused)
    return imported.__dict__ | {"refused": refused if AS_JSON.get() else len(refused)}
