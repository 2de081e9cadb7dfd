"""What of the application changes something, and the layer that watches who may."""

from fastapi import FastAPI

from explorer.adapting import Adapting
from explorer.app import Explorer
from explorer.pages import adapting, corrections, review
from explorer.safety import Guard


def add_changes(app: FastAPI, made: Explorer) -> None:
    """Add reviewing, correcting and adapting to the pages, and put the guard round all of it."""
    app.state.adapting = Adapting(made.space)
    for page in (adapting, corrections, review):
        app.include_router(page.router)
    app.add_middleware(Guard, access=made.options.access)
