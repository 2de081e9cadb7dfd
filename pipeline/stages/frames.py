"""Visual change, gripper and speed of every frame, and coarse keyframes: one streaming pass per video."""

from annotate.frames import CODE_VERSION, frames_stage
from pipeline.checks import chunk_check
from pipeline.pictures import frames_figure
from pipeline.stage import Output, Stage, StageContext
from warehouse.lake.checks import decodable_coverage
from warehouse.lake.keyframes import KeyframeWriter
from warehouse.lake.signals import stored_signals


def run(context: StageContext) -> Output:
    lake, build = context.lake, context.build
    keepers = context.pictures.keepers(context.step.input_hash) if context.pictures else ()
    with KeyframeWriter(lake.workspace) as keyframes:
        measured = frames_stage(
            context.source,
            context.each(context.records()),
            context.chunk,
            build.stages.frames,
            keyframes.store,
            keepers,
            stored_signals(lake.con, build.name),
        )
    numbers = {"decoded_frames": measured.decoded_frames, "keyframe_bytes": keyframes.new_bytes}
    return Output(measured.tables, measured.findings, numbers=numbers)


STAGE = Stage(
    name="frames",
    upstream=("episodes",),
    run=run,
    config=lambda build: (build.stages.frames,),
    code_version=CODE_VERSION,
    description="Visual change, gripper and speed of every frame, and coarse keyframes: one streaming pass per video.",
    reads_source=True,
    checks=(chunk_check(decodable_coverage, is_blocking=True),),
    picture=frames_figure,
)
