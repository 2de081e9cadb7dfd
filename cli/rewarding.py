"""Rewards: of videos and episodes, and over HTTP."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from cli.options import (
    HostOption,
    NoTokenOption,
    PortOption,
    Result,
    Space,
    TokenFileOption,
    command,
    note,
    say,
    warn,
)
from cli.output import progress
from core.errors import UserError
from core.names import LATEST
from core.web import (
    access_for,
    is_loopback,
    link_with,
    listen,
    serve,
    token_for,
)
from eval.reward.open import ScorerOptions, open_scorer
from eval.reward.stream import CutOffError
from eval.server.limits import ServerLimits
from pipeline.rewards import CAMERA, named_scorer, score_video, task_like


@command("reward")
def reward(
    space: Space,
    video: Annotated[
        Path | None,
        Argument(help="A video of one run; else name an episode with --dataset and --episode."),
    ] = None,
    dataset: Annotated[str | None, Option(help="A dataset of the workspace.")] = None,
    episode: Annotated[int | None, Option(min=0, help="Episode of --dataset to score.")] = None,
    task: Annotated[
        str | None,
        Option(help="Instruction in words; default: the episode's task, or that of --like."),
    ] = None,
    out: Annotated[
        Path | None,
        Option(
            help="JSON-lines file to write, one row per scored frame; default: named after the run."
        ),
    ] = None,
    fps: Annotated[
        float | None,
        Option(
            min=0.001,
            help="Frames to score per second; default: 4, or all frames of a slower video.",
        ),
    ] = None,
    *,
    scorer: ScorerOptions,
    camera: Annotated[
        list[str] | None,
        Option(
            help="Another camera of the same run: NAME=VIDEO, for an episode NAME; repeatable; scores are averaged."
        ),
    ] = None,
    overlay: Annotated[
        Path | None, Option(help="Also write a video with curves and steps under the picture.")
    ] = None,
    step: Annotated[
        list[str] | None,
        Option(
            help="A step of the task, in order; for ProgressLM's models, which compare with the steps; repeatable."
        ),
    ] = None,
    partial: Annotated[
        bool, Option(help="If the video is cut off, score the frames that are there.")
    ] = False,
) -> Result:
    """Score a video or an episode: progress and success at each sampled frame.

    Success only if the model predicts it. Where there is no number, null.
    """
    is_episode = dataset is not None and episode is not None
    if is_episode == (video is not None) or (dataset is None) != (episode is None):
        raise UserError("give either a video, or --dataset NAME with --episode N")
    if video is not None and task is None:
        if not scorer.like:
            raise UserError("a video needs --task, the instruction in words")
        task = task_like(scorer.like, space)
    if video is not None:
        # The main video is a camera like the further ones; what is given is their mean
        run = {CAMERA: video} | _cameras(camera or [])
        name = video.stem
    else:
        assert dataset is not None
        assert episode is not None
        # Imports duckdb, which a video does without
        from pipeline.episode_rewards import episode_clip

        run, of_episode = episode_clip(space, dataset, episode, camera or ())
        task = task or of_episode
        name = f"{dataset}-{episode}"
    config = named_scorer(scorer, space, tuple(run) if isinstance(run, dict) else run.cameras)
    try:
        with progress() as report:
            report("scored", detail="nothing yet: the model is opened")
            scored = score_video(
                config,
                run,
                task or "",
                out or Path(f"{name}.rewards.jsonl"),
                score_fps=fps,
                steps=tuple(step or ()),
                overlay=overlay,
                partial=partial,
                on_row=lambda row: report("scored", detail=f"{row['timestamp_s']:.1f} s"),
            )
    except CutOffError as e:
        raise UserError(
            f"{e}, so nothing was kept; --partial scores the frames that are there"
        ) from e
    warn(scored.notes, "note")
    return Result(scored.__dict__ | {"notes": list(scored.notes)}, hidden=["notes"])


def _cameras(arguments: list[str]) -> dict[str, Path]:
    """Videos by camera, of texts such as `wrist=wrist.mp4`. Raises UserError."""
    videos: dict[str, Path] = {}
    for text in arguments:
        name, _, path = text.partition("=")
        if not (name and path) or name == CAMERA or name in videos:
            raise UserError(
                f"--camera {text}: it is NAME=VIDEO, each name once and none {CAMERA!r}"
            )
        videos[name] = Path(path)
    return videos


@command("serve")
def serve_rewards(
    space: Space,
    scorer: ScorerOptions,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8700,
    token_file: TokenFileOption = None,
    no_token: NoTokenOption = False,
    max_sessions: Annotated[int, Option(min=1, help="Maximum simultaneous live runs.")] = 256,
    idle_timeout: Annotated[
        float, Option(min=1, help="Seconds after which an unused session is deleted.")
    ] = 600,
    max_batch: Annotated[int, Option(min=1, help="Maximum frames scored in one batch.")] = 32,
    max_body_mb: Annotated[int, Option(min=1, help="Maximum size of a request, in MB.")] = 64,
    max_kept_gb: Annotated[
        float, Option(min=0.001, help="Maximum GB for pictures and vision tokens of all sessions.")
    ] = 8,
) -> None:
    """Serve rewards over HTTP, for live sessions and for whole runs; see /docs.

    Live sessions are for reinforcement learning.
    """
    token, shown_token = token_for("serve", space, token_file, none=no_token)
    access = access_for(host, token=token, hosts=(host,) if is_loopback(host) else ())
    config = named_scorer(scorer, space)
    limits = ServerLimits(
        max_sessions=max_sessions,
        session_idle_s=idle_timeout,
        max_batch=max_batch,
        max_body_bytes=max_body_mb * 2**20,
        max_kept_bytes=round(max_kept_gb * 2**30),
    )
    # The port is taken before the model is loaded, so one that is in use is told at once
    with listen(host, port) as listener:
        from eval.server.app import make_app  # imports torch

        with open_scorer(config) as opened:
            aliases = [Path(scorer.model or LATEST).name] if config.folder else []
            serve(
                make_app(opened, list(dict.fromkeys((config.name, *aliases))), access, limits),
                listener,
                lambda url: say(
                    f"listening on {url}\nin a browser: {link_with(f'{url}/docs', shown_token)}"
                ),
            )
    note("stopped")
