"""What a frozen encoder sees in pictures of each episode, a few a second; taken from the decoding of `frames`."""

import numpy as np
import pyarrow as pa

from annotate.embeddings.passing import camera_rows, embed_camera, wanted_cameras
from core.tables import TABLES
from ingest.episode import Finding
from ingest.reasons import CHANGED_DURING_BUILD, DataError
from pipeline.picture_cache import embedding_pass
from pipeline.stage import Output, StageContext
from warehouse.measured import ChangedError, MeasuredSource


def run(context: StageContext) -> Output:
    """Of what the frames stage has not handed over, the wanted pictures are decoded here.

    A camera whose pictures cannot be had any more is left out, with a finding; so is an episode that is another
    recording by now.
    """
    lake = context.lake
    build = context.build
    source = MeasuredSource(lake, context.source)
    chunk = context.chunk
    records = {record.episode_index: record for record in context.records()}
    contents = lake.rows(
        "SELECT episode_index, usable_cameras, fps, num_frames FROM episode_content "
        "WHERE dataset = ? AND chunk = ? ORDER BY 1",
        [build.name, chunk],
    )
    tables = [TABLES["embeddings"].empty()]
    findings = []
    decoded_frames = 0
    with embedding_pass(build, context.kept(), context.source.decoding_threads) as into:
        for episode_index, usable, fps, num_frames in context.each(contents):
            for camera in wanted_cameras(build.embeddings, usable):
                if not into.has(episode_index, camera):
                    try:
                        episode = source.episode(records[episode_index])
                        decoded_frames += embed_camera(into, episode, camera, fps, num_frames)
                    except DataError as e:
                        into.drop(episode_index, camera)
                        detail = f"the encoder cannot be shown them any more: {e}"
                        reason = e.reason if isinstance(e, ChangedError) else "undecodable_video"
                        place = episode_index, camera, records[episode_index].data_uri
                        findings.append(Finding(reason, detail, "warning", *place))
                        continue
                key = {
                    "dataset": build.name,
                    "episode_index": episode_index,
                    "camera": camera,
                    "chunk": chunk,
                }
                tables.append(camera_rows(key, into.encoder, *into.take(episode_index, camera)))
    changed = [f.episode_index for f in findings if f.reason == CHANGED_DURING_BUILD]
    table = pa.concat_tables(tables)
    table = table.filter(~np.isin(table["episode_index"].to_numpy(), changed))
    device = into.encoder.device
    numbers = {
        "embedded_pictures": table.num_rows,
        "decoded_frames": decoded_frames,
        "device": device,
    }
    return Output({"embeddings": table}, findings, numbers=numbers)
