"""Visual change, gripper and speed of every frame, and coarse keyframes: one streaming pass per video."""

from annotate.frames import CODE_VERSION, frames_stage
from pipeline.checks import chunk_check
from pipeline.keyframes import store_keyframe
from pipeline.pictures import frames_figure
from pipeline.reading import usable_records
from pipeline.stage import Output, Stage, StageContext
from warehouse.lake.checks import decodable_coverage
from warehouse.lake.signals import stored_signals


def run(context: StageContext) -> Output:
    lake, build = context.lake, context.build
    records = usable_records(lake, build.name, context.chunk)
    stored_bytes = 0

    def store(sha256: str, jpeg: bytes) -> None:
        nonlocal stored_bytes
        is_new = store_keyframe(lake.workspace, sha256, jpeg)
        stored_bytes += len(jpeg) if is_new else 0

    keepers = context.pictures.keepers(context.step.input_hash) if context.pictures else ()
    signals = stored_signals(lake.con, build.name)
    measured = frames_stage(context.source, records, context.chunk, build.stages.frames, store, keepers, signals)
    numbers = {"decoded_frames": measured.decoded_frames, "keyframe_bytes": stored_bytes}
    return Output(measured.tables, measured.findings, numbers=numbers)


STAGE = Stage(
    name="frames",
    upstream=("episodes",),
    run=run,
    config=lambda build: (build.stages.frames,),
    code_version=CODE_VERSION,
    description="Visual change, gripper and speed of every frame, and coarse keyframes: one streaming pass per video.",
    main_table="frames",
    reads_source=True,
    checks=(chunk_check(decodable_coverage, is_blocking=True),),
    kinds=frozenset({"ducklake", "parquet", "video"}),
    picture=frames_figure,
)
