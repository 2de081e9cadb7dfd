"""The corpus in Python, and the entry point of the command `proccorpus`.

    import proccorpus as pc

    corpus = pc.open("workspace")  # or pc.build("path/or/address", annotator="auto")
    episode = corpus["sim_short"][3]
    episode.segments, episode.progress  # dataclasses; float32 [frames]
    corpus.labels().to_pandas(), corpus.sql("FROM coverage").df()
    episode.show()  # a picture, in a notebook
    episode.correct(episode.segments, author="ada")
    corpus.build("sim_short")  # labels, samples and shards follow
    sample = next(iter(corpus.samples(split="train")))
    corpus.export.lerobot("out", dataset=("sim_short",))
    rows = pc.reward("run.mp4", like=episode)  # a row each scored frame: progress, done
    pc.run("show", name="faults")  # any command: what it prints as JSON

`import proccorpus` loads nothing else: each name is imported when it is first used.
"""

import gc
import os
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from cli.commands import run
    from core.errors import UserError
    from pipeline.corpus import Corpus, Dataset, build, open, reward  # noqa: A004
    from pipeline.corpus import CorpusEpisode as Episode

__all__ = [
    "Corpus",
    "Dataset",
    "Episode",
    "UserError",
    "__version__",
    "build",
    "main",
    "open",
    "reward",
    "run",
]
_NAMES = {
    "Episode": ("pipeline.corpus", "CorpusEpisode"),
    "UserError": ("core.errors", "UserError"),
    "__version__": ("core.version", "VERSION"),
    "run": ("cli.commands", "run"),
}
_ROOMS = (
    "core",
    "ingest",
    "annotate",
    "warehouse",
    "explorer",
    "training",
    "eval",
    "pipeline",
    "assets",
    "cli",
)


def _check_rooms() -> None:
    """Our packages have everyday names: one of another project in their place would break far from its cause."""
    here = Path(__file__).resolve().parent
    for room in _ROOMS:
        found = find_spec(room)
        places = [
            Path(place).resolve() for place in (found and found.submodule_search_locations) or ()
        ]
        if places != [here / room]:
            of_other = found.origin if found and found.origin else places or "nowhere"
            raise ImportError(
                f"proccorpus needs its own package `{room}` at {here / room}, and Python finds {of_other}: use an "
                "environment, and a working folder, without another module of that name"
            )


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(
            f"module 'proccorpus' has no attribute {name!r}; it has {', '.join(__all__)}"
        )
    module, own = _NAMES.get(name, ("pipeline.corpus", name))
    return getattr(import_module(module), own)


def main() -> None:
    """The command `proccorpus`, in a process of its own."""
    gc.disable()  # until all is imported: cli.main enables it
    # It would look through all that is installed for plug-ins of pydantic, of which we use none
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    try:
        import_module("cli.main").main_of_process()
    finally:
        # Python looks through all that is left at its end, though the system takes it back: 0.05 s
        gc.freeze()


_check_rooms()

if __name__ == "__main__":
    main()
