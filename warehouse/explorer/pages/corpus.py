"""The corpus as a whole."""

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from warehouse.explorer.app import explorer

router = APIRouter()


@router.get("/")
def page(request: Request) -> HTMLResponse:
    made = explorer(request)
    with made.corpus.reading() as reader:
        datasets = reader.dicts("FROM coverage ORDER BY dataset")
        return made.page(request, "corpus.html", reader, title="Corpus", datasets=datasets)
