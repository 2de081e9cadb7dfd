"""What a frozen encoder sees in pictures of each episode, a few a second; taken from the decoding of `frames`."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
from pydantic import BaseModel

from annotate.embeddings.encoders import identity
from annotate.embeddings.passing import CODE_VERSION, EmbeddingPass, Seen, camera_rows, look, wanted_cameras
from core.tables import TABLES
from ingest.episode import EpisodeRecord, Finding
from ingest.reasons import DataError
from ingest.source import read_episode
from ingest.sources.files import Source
from pipeline.config import DatasetBuild
from pipeline.picture_cache import embedding_pass
from pipeline.stage import Output, Stage, StageContext


def run(context: StageContext) -> Output:
    """Of what the frames stage has not handed over, the wanted pictures are decoded here.

    A camera whose pictures cannot be had any more is left out, with a finding.
    """
    build, threads = context.build, context.source.decoding_threads
    with embedding_pass(build, context.kept(), threads) as into:
        looking = _Looking(into, context.source)
        tables = [camera_rows(where, into.encoder, *seen) for where, seen in looking.chunk(context)]
    table = pa.concat_tables([TABLES["embeddings"].empty(), *tables])
    numbers = {
        "embedded_pictures": table.num_rows,
        "decoded_frames": looking.decoded_frames,
        "device": into.encoder.device,
    }
    return Output({"embeddings": table}, looking.findings, numbers=numbers)


@dataclass
class _Looking:
    """The pass that looks at a chunk, and what came up on the way."""

    into: EmbeddingPass
    source: Source
    findings: list[Finding] = field(default_factory=list)
    decoded_frames: int = 0

    def chunk(self, context: StageContext) -> Iterator[tuple[dict, Seen]]:
        """Where, and what was seen there: of each wanted camera of each usable episode."""
        lake, build, chunk = context.lake, context.build, context.chunk
        records = {record.episode_index: record for record in context.records()}
        contents = lake.rows(
            "SELECT episode_index, usable_cameras, fps, num_frames FROM episode_content "
            "WHERE dataset = ? AND chunk = ? ORDER BY 1",
            [build.name, chunk],
        )
        for episode_index, usable, fps, num_frames in contents:
            for camera in wanted_cameras(build.embeddings, usable):
                if self.into.has(episode_index, camera) or self._decode(
                    records[episode_index], camera, fps, num_frames
                ):
                    where = {"dataset": build.name, "episode_index": episode_index, "camera": camera, "chunk": chunk}
                    yield where, self.into.take(episode_index, camera)

    def _decode(self, record: EpisodeRecord, camera: str, fps: float, num_frames: int) -> bool:
        """Hand over a camera's pictures in a pass of its own; False, and a finding, where they cannot be had."""
        try:
            episode = read_episode(self.source, record)
            self.decoded_frames += look(self.into, episode, camera, fps, num_frames)
        except DataError as e:
            self.into.drop(record.episode_index, camera)
            detail = f"the encoder cannot be shown them any more: {e}"
            self.findings.append(Finding("pictures_lost", detail, "warning", record.episode_index, camera))
            return False
        return True


def config_parts(build: DatasetBuild) -> tuple[BaseModel | str, ...]:
    # When it is done, and on which device, does not change what it is
    config = build.embeddings
    return config.model_dump_json(exclude={"when", "device"}), identity(config)


STAGE = Stage(
    name="embeddings",
    upstream=("frames",),
    run=run,
    config=config_parts,
    code_version=CODE_VERSION,
    description="What a frozen encoder sees in a few pictures a second: what runs are alike by.",
    applies=lambda build: build.has_embeddings,
    reads_source=True,
)
