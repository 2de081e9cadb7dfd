"""The label run of each annotator: under which identity a build's labels stand in the lake.

Labels made alike have one label run. So each function names all that its annotator's labels depend on: code versions
and settings. The list `ANNOTATORS` (core/annotators.py) names these functions.
"""

from typing import Any

from annotate.config import (
    EMBEDDINGS_VERSION,
    MOTION_VERSION,
    NATIVE_VERSION,
    PROGRESS_VERSION,
    TRANSFER_VERSION,
    VLM_VERSION,
)
from annotate.embeddings import identity, missing_download
from core.domain.label_run import LabelRun, resolved
from pipeline.config import DatasetBuild


def motion_run(build: DatasetBuild) -> LabelRun:
    """Labels by the robot's motion."""
    return LabelRun("motion", MOTION_VERSION, _with_views(build, _settings(build.stages.motion)))


def native_run(build: DatasetBuild) -> LabelRun:
    """Labels of the source's steps. Motion labels the episodes that have no steps, so its settings belong here."""
    without_steps = {"code_version": MOTION_VERSION, **_settings(build.stages.motion)}
    return LabelRun("native", NATIVE_VERSION, _with_views(build, {"without_steps": without_steps}))


def vlm_run(build: DatasetBuild) -> LabelRun:
    """Labels by a vision-language model. Episodes it is not asked about are labelled as those of references are."""
    vlm = build.stages.vlm
    params = vlm.identity()
    if vlm.runs_per_task != "all":
        versions = [MOTION_VERSION, TRANSFER_VERSION, PROGRESS_VERSION]
        settings = [build.stages.motion, build.stages.transfer, build.stages.progress]
        params["follow"] = [*versions, *map(_settings, settings)]
    # Boundaries are put where motion sees the arm rest or grip. By its defaults a label run is what it was
    elif changed_motion := build.stages.motion.model_dump(mode="json", exclude_defaults=True):
        params["motion"] = changed_motion
    return LabelRun(
        "vlm",
        VLM_VERSION,
        _with_views(build, params),
        vlm.model,
        vlm.revision,
        build.prompt_version,
    )


def transfer_run(build: DatasetBuild) -> LabelRun:
    """Labels like those of references: by pictures, states, and what motion sees."""
    config = build.embeddings
    embeddings = None
    if config.when != "never" and not missing_download(config):
        embeddings = config.model_dump(mode="json", exclude={"when", "device"})
        embeddings |= {
            "code_version": EMBEDDINGS_VERSION,
            "weights": identity(config),
        }
    params = {
        "transfer": _settings(build.stages.transfer),
        "motion": {"code_version": MOTION_VERSION, **_settings(build.stages.motion)},
        "native": NATIVE_VERSION,  # of references' steps that the source brings
        "embeddings": embeddings,
    }
    return LabelRun("transfer", TRANSFER_VERSION, _with_views(build, params))


def _settings(config: Any) -> dict[str, Any]:
    return config.model_dump(mode="json")


def _with_views(build: DatasetBuild, params: dict[str, Any]) -> str:
    """The resolved parameters of a label run; a label by one camera is what it was before there were views."""
    return resolved(params | {"views": build.views} if build.views else params)
