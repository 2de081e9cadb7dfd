"""Rewards of videos."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.options import DEFAULT_WORKSPACE, FormatOption, WorkspaceOption, space_at
from cli.output import show_facts
from cli.progress import progress
from core.errors import UserError
from core.names import LATEST

if TYPE_CHECKING:
    from core.paths import Workspace
    from eval.reward.open import ScorerConfig

app = typer.Typer()

CAMERA = "camera"  # of the video that is named first
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model", help="A model of the workspace, a checkpoint's folder, or a name at --endpoint; default: latest."
    ),
]
BaselineOption = Annotated[
    Literal["clock", "visual"] | None,
    typer.Option("--baseline", help="Score without a model: by elapsed time, or by change of the pixels."),
]
EndpointOption = Annotated[
    list[str] | None,
    typer.Option("--endpoint", help="Base address of an OpenAI-compatible server, ends in /v1; repeatable."),
]
ApiKeyOption = Annotated[
    str | None, typer.Option("--api-key-env", help="Environment variable that holds the endpoint's key.")
]
MaxCallsOption = Annotated[
    int | None, typer.Option("--max-calls", min=0, help="Maximum number of requests to the endpoint.")
]
AnswerOption = Annotated[
    Literal["auto", "head", "text"],
    typer.Option(
        "--answer",
        help="Read the answer from a head or from text; auto: a head that reads only the question, else text.",
    ),
]
WindowFramesOption = Annotated[
    int | None, typer.Option("--window-frames", min=1, help="Pictures of a window, if the model does not state it.")
]
WindowStepOption = Annotated[
    float | None,
    typer.Option("--window-step", min=0.0, help="Seconds between these pictures; default: consecutive frames."),
]


def scorer_config(
    workspace: str,
    model: str | None,
    baseline: Literal["clock", "visual"] | None,
    endpoint: list[str] | None,
    window_frames: int | None,
    window_step: float | None,
    reasoning: bool = False,
    api_key_env: str | None = None,
    max_calls: int | None = None,
    answer: Literal["auto", "head", "text"] = "auto",
) -> "ScorerConfig":
    """The configuration of a scorer that the options of a command describe. Raises UserError."""
    from eval.reward.open import ScorerConfig
    from eval.reward.window import Window

    contradictions = {
        "give either --model M or --baseline clock|visual": model is not None and baseline is not None,
        "--endpoint needs --model, the model's name there": model is None and endpoint,
        "--window-step needs --window-frames": window_step is not None and window_frames is None,
        "--reasoning, --window-frames and --endpoint need --model": baseline
        and (reasoning or window_frames or endpoint),
        "--answer needs a checkpoint on this machine": answer != "auto" and (baseline or endpoint),
    }
    for what, is_so in contradictions.items():
        if is_so:
            raise UserError(what)
    if model is None and baseline is None:
        model = LATEST
    # A model behind an endpoint is known by its name there; otherwise the name is a folder's
    space = space_at(workspace)
    folder = _model_folder(space, model) if model is not None and not endpoint else None
    return ScorerConfig(
        folder=folder,
        model=model or "",
        endpoints=tuple(endpoint or ()),
        baseline=baseline,
        window=Window(window_frames, window_step) if window_frames else None,
        reasoning=reasoning,
        answer=answer,
        responses=space.responses if space.exists() else None,
        api_key_env=api_key_env,
        max_calls=max_calls,
    )


def _model_folder(space: "Workspace", model: str) -> Path:
    """The folder of a model of the workspace, or of a checkpoint. Raises UserError."""
    from pipeline.models import model_folder
    from training.errors import ModelError, TrainingError

    try:
        return model_folder(space, model)
    except (ModelError, TrainingError) as e:
        raise UserError(str(e)) from e


@app.command()
def reward(
    video: Annotated[
        Path | None, typer.Argument(help="A video of one run; else name an episode with --dataset and --episode.")
    ] = None,
    dataset: Annotated[str | None, typer.Option("--dataset", help="A dataset of the workspace.")] = None,
    episode: Annotated[int | None, typer.Option("--episode", min=0, help="Episode of --dataset to score.")] = None,
    task: Annotated[
        str | None, typer.Option("--task", help="Instruction in words; default: the episode's task.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="JSON-lines file to write, one row per scored frame; default: named after the run.",
        ),
    ] = None,
    model: ModelOption = None,
    baseline: BaselineOption = None,
    fps: Annotated[
        float | None,
        typer.Option(
            "--fps", min=0.001, help="Frames to score per second; default: 4, or all frames of a slower video."
        ),
    ] = None,
    camera: Annotated[
        list[str] | None,
        typer.Option(
            "--camera",
            help="Another camera of the same run: NAME=VIDEO, for an episode NAME; repeatable; scores are averaged.",
        ),
    ] = None,
    overlay: Annotated[
        Path | None, typer.Option("--overlay", help="Also write a video with the curve under the picture.")
    ] = None,
    reasoning: Annotated[
        bool, typer.Option("--reasoning", help="Add the model's answer in words; much slower with a head.")
    ] = False,
    step: Annotated[
        list[str] | None,
        typer.Option(
            "--step",
            help="A step of the task, in order; for ProgressLM's models, which compare with the steps; repeatable.",
        ),
    ] = None,
    answer: AnswerOption = "auto",
    partial: Annotated[
        bool, typer.Option("--partial", help="If the video is cut off, score the frames that are there.")
    ] = False,
    window_frames: WindowFramesOption = None,
    window_step: WindowStepOption = None,
    endpoint: EndpointOption = None,
    api_key_env: ApiKeyOption = None,
    max_calls: MaxCallsOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
) -> None:
    """Score a video or an episode: progress, and success if the model predicts it, for each sampled frame.

    Where there is no number, null.
    """
    is_episode = dataset is not None and episode is not None
    if is_episode == (video is not None) or (dataset is None) != (episode is None):
        raise UserError("give either a video, or --dataset NAME with --episode N")
    if video is not None and task is None:
        raise UserError("a video needs --task, the instruction in words")
    from eval.reward.window import CutOffError
    from pipeline.rewards import score_video

    config = scorer_config(
        workspace, model, baseline, endpoint, window_frames, window_step, reasoning, api_key_env, max_calls, answer
    )
    if video is not None:
        assert task is not None
        # The main video is a camera like the further ones; what is given is their mean
        run, name = {CAMERA: video} | _cameras(camera or []), video.stem
    else:
        assert dataset is not None
        assert episode is not None
        from pipeline.episode_rewards import episode_clip

        run, of_episode = episode_clip(space_at(workspace), dataset, episode, camera or ())
        task, name = task or of_episode, f"{dataset}-{episode}"
    try:
        with progress() as report:
            done = score_video(
                config,
                run,
                task,
                out or Path(f"{name}.rewards.jsonl"),
                score_fps=fps,
                steps=tuple(step or ()),
                overlay=overlay,
                partial=partial,
                on_row=lambda row: report("scored", detail=f"{row['timestamp_s']:.1f} s"),
            )
    except CutOffError as e:
        raise UserError(f"{e}, so nothing was kept; --partial scores the frames that are there") from e
    for note in done.notes:
        print(f"note: {note}", file=sys.stderr)
    facts = {name: value for name, value in done.__dict__.items() if name != "notes"}
    if format == "json":
        facts["notes"] = list(done.notes)
    show_facts(facts, format)


def _cameras(given: list[str]) -> dict[str, Path]:
    """Videos by camera, of texts such as `wrist=wrist.mp4`. Raises UserError."""
    videos: dict[str, Path] = {}
    for text in given:
        name, _, path = text.partition("=")
        is_new = name != CAMERA and name not in videos
        if not (name and path and is_new):
            raise UserError(f"--camera {text}: it is NAME=VIDEO, each name once and none {CAMERA!r}")
        videos[name] = Path(path)
    return videos
