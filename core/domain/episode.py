"""An episode as the lake knows it: what it is known by, and the facts that hold for the whole of it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Episode:
    """One episode of a dataset, without its rows, pictures and label.

    num_frames: 0 where nobody has counted them yet. cameras: those that can be used, the preferred
    one first. content_hash: None where it was not decoded yet. same_as: the text that stands for its
    task, where people joined several and a reader asks for it.

    label_run, confidence 0..1, named (has every step of it a name?) and end_by (what its end rests
    on, as the table label_quality has it) are those of the label that counts. label_run is None
    where nobody labelled the episode, or where the label is not sure enough for a reader:
    is_unsure. sure_of_names: is it sure enough of its steps' names?
    """

    dataset: str
    episode_index: int
    chunk: int
    fps: float  # frames per second, as measured, else as stated
    num_frames: int
    task: str | None
    success: bool | None
    split: str | None
    cameras: tuple[str, ...]
    tasks: tuple[str, ...] = ()
    source_id: str = ""
    content_hash: str | None = None
    label_run: str | None = None
    confidence: float | None = None
    named: bool | None = None
    end_by: str | None = None
    is_unsure: bool = False
    sure_of_names: bool = True
    same_as: str | None = None

    @property
    def key(self) -> tuple[str, int]:
        """What it is known by in a corpus."""
        return self.dataset, self.episode_index

    @property
    def row_key(self) -> tuple[str, int, int]:
        """Where its rows lie in the lake's tables: dataset, chunk and episode_index."""
        return self.dataset, self.chunk, self.episode_index

    @property
    def duration_s(self) -> float:
        return self.num_frames / self.fps
