"""Servers: of rewards, and of the vision-language model that annotates."""

import os
import stat
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from cli.options import DEFAULT_WORKSPACE, FormatOption, WorkspaceOption, YesOption, confirm, say, space_at
from cli.output import show
from cli.progress import progress
from cli.rewarding import (
    AnswerOption,
    ApiKeyOption,
    BaselineOption,
    EndpointOption,
    ModelOption,
    WindowFramesOption,
    WindowStepOption,
    scorer_config,
)
from core.errors import UserError

TOKEN_VARIABLE = "PROCCORPUS_REWARD_TOKEN"
SHORTEST_TOKEN, MOST_TOKEN = 16, 4096
app = typer.Typer()
vlm_app = typer.Typer(
    help="Serve the vision-language model that annotates, and manage its cached replies.",
    no_args_is_help=True,
)
app.add_typer(vlm_app, name="vlm")


@vlm_app.command("cache")
def vlm_cache(
    prune_older: Annotated[
        float | None,
        typer.Option("--prune-older-than", min=0, help="Delete replies that are older than this many days."),
    ] = None,
    prune_versions: Annotated[
        bool, typer.Option("--prune-other-prompts", help="Delete replies to other versions of the prompts.")
    ] = False,
    yes: YesOption = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
) -> None:
    """List the cached replies of models, by model, prompts and stage. The options delete replies first.

    Deleting changes no label; only a new build of it would ask the model again.
    """
    from datetime import UTC, datetime, timedelta

    from annotate.vlm.prompts import prompt_version
    from pipeline.vlm_chunk import cache_rows, response_store
    from warehouse.lake import Lake

    space = space_at(workspace)
    Lake(space, read_only=True)  # refuses where there is no workspace
    store = response_store(space)
    if prune_older is not None or prune_versions:
        # Replies to today's prompts stay; this version asks for none of the others again
        present = {prompt_version(several_views=several) for several in (False, True)}
        keep = {k for k, r in store.replies() if r.prompt_version in present} if prune_versions else None
        limit = None if prune_older is None else datetime.now(UTC) - timedelta(days=prune_older)
        confirm("Delete replies, which would have to be asked for and paid again?", yes=yes)
        print(f"{store.prune(keep, limit)} replies deleted.", file=sys.stderr)
    show(cache_rows(store), format, empty="No reply is kept.")


@vlm_app.command("serve")
def vlm_serve(
    served_model: Annotated[str | None, typer.Option("--model", help="Name on the hub, or a folder.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Model name in requests; default: as --model.")] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="Commit of the model on the hub.")] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port of the first replica; 0: any free one.")
    ] = 8000,
    device: Annotated[
        Literal["auto", "cpu", "gpu"],
        typer.Option("--device", help="auto: the device that the installed vLLM supports."),
    ] = "auto",
    replicas: Annotated[int, typer.Option("--replicas", min=1, help="Number of servers, each with its own GPUs.")] = 1,
    tensor_parallel_size: Annotated[int, typer.Option("--tensor-parallel-size", min=1, help="GPUs per replica.")] = 1,
    quantization: Annotated[
        str | None, typer.Option("--quantization", help="Quantisation, such as fp8; default: none.")
    ] = None,
    max_model_len: Annotated[
        int, typer.Option("--max-model-len", min=1024, help="Maximum tokens of a request.")
    ] = 16384,
    max_images: Annotated[int, typer.Option("--max-images", min=1, help="Maximum images of a request.")] = 32,
    max_num_seqs: Annotated[int | None, typer.Option("--max-num-seqs", min=1, help="Simultaneous requests.")] = None,
    python: Annotated[
        Path | None,
        typer.Option("--python", help="Python interpreter with vLLM; default: that of .venv-vllm, if it exists."),
    ] = None,
    log_dir: Annotated[Path, typer.Option("--log-dir", help="Folder for the servers' logs.")] = Path("logs"),
    timeout: Annotated[
        float, typer.Option("--timeout", min=1, help="Maximum seconds until the servers are ready.")
    ] = 1800,
) -> None:
    """Run vLLM with the flags that annotation needs, until Ctrl-C; prints the endpoints when they are ready."""
    import time

    from annotate.model_client.server import Server, ServerConfig
    from annotate.vlm.config import VlmConfig

    config = ServerConfig(
        model=served_model or VlmConfig().model,
        served_name=name,
        revision=revision,
        host=host,
        port=port,
        device=device,
        replicas=replicas,
        tensor_parallel_size=tensor_parallel_size,
        quantization=quantization,
        max_model_len=max_model_len,
        max_images=max_images,
        max_num_seqs=max_num_seqs,
        python=python,
        log_dir=log_dir,
        ready_timeout_s=timeout,
    )
    try:
        with progress() as report, Server(config, lambda line: report("vLLM", detail=line)) as server:
            for endpoint, log in zip(server.endpoints, server.logs, strict=True):
                say(f"{config.name} is ready at {endpoint}, log: {log}")
            # Until Ctrl-C; a server that dies ends this, too, with its error
            while True:
                server.check()
                time.sleep(1)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)


@app.command("serve")
def serve_rewards(
    model: ModelOption = None,
    baseline: BaselineOption = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on; any but loopback needs a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0: any free one.")] = 8700,
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", help=f"File with the bearer token for all requests; or {TOKEN_VARIABLE}."),
    ] = None,
    max_sessions: Annotated[int, typer.Option("--max-sessions", min=1, help="Maximum simultaneous live runs.")] = 256,
    idle_timeout: Annotated[
        float, typer.Option("--idle-timeout", min=1, help="Seconds after which an unused session is deleted.")
    ] = 600,
    max_batch: Annotated[int, typer.Option("--max-batch", min=1, help="Maximum frames scored in one batch.")] = 32,
    max_body_mb: Annotated[int, typer.Option("--max-body-mb", min=1, help="Maximum size of a request, in MB.")] = 64,
    max_kept_gb: Annotated[
        float,
        typer.Option("--max-kept-gb", min=0.001, help="Maximum GB for pictures and vision tokens of all sessions."),
    ] = 8,
    reasoning: Annotated[
        bool, typer.Option("--reasoning", help="Add the model's answer in words; much slower with a head.")
    ] = False,
    answer: AnswerOption = "auto",
    window_frames: WindowFramesOption = None,
    window_step: WindowStepOption = None,
    endpoint: EndpointOption = None,
    api_key_env: ApiKeyOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Serve rewards over HTTP, for live sessions in reinforcement learning and for whole runs; see /docs."""
    from core.web import access_for, is_loopback, listen, serve
    from eval.server.limits import Limits

    token = _token(token_file)
    # Without a token anybody in the network could use the model
    if token is None and not is_loopback(host):
        raise UserError(
            f"--host {host} can be reached from other machines: give a token, --token-file FILE or {TOKEN_VARIABLE}"
        )
    config = scorer_config(
        workspace, model, baseline, endpoint, window_frames, window_step, reasoning, api_key_env, answer=answer
    )
    limits = Limits(
        max_sessions=max_sessions,
        session_idle_s=idle_timeout,
        max_batch=max_batch,
        max_body_bytes=max_body_mb * 2**20,
        max_kept_bytes=round(max_kept_gb * 2**30),
    )
    access = access_for(host, token=token, hosts=(host,) if is_loopback(host) else ())
    # The port is taken before the model is loaded, so one that is in use is told at once
    with listen(host, port) as listener:
        from eval.reward.open import open_scorer
        from eval.server.app import make_app

        with open_scorer(config) as scorer:
            serve(
                make_app(scorer, model or str(baseline), access, limits),
                listener,
                lambda url: say(f"listening on {url}"),
            )
    print("stopped", file=sys.stderr)


def _check_private(file: Path, status: os.stat_result) -> None:
    """Raises UserError for a file that others than its owner and group may read, or others than its owner write."""
    if not stat.S_ISREG(status.st_mode):
        return  # a pipe of the shell's, which has no others
    if status.st_mode & stat.S_IROTH:
        raise UserError(f"--token-file {file} can be read by every user of this machine: chmod 600 {file}")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UserError(f"--token-file {file} can be written by others than its owner: chmod 600 {file}")
    if status.st_uid not in (0, os.getuid()):
        raise UserError(f"--token-file {file} belongs to another user, who can change it: make one of your own")


def _token(file: Path | None) -> str | None:
    """Raises UserError."""
    if file is None:
        # From a file or the environment, not from an option: arguments can be read by every user of the machine
        token = os.environ.get(TOKEN_VARIABLE)
        where = TOKEN_VARIABLE
    else:
        where = str(file)
        try:
            with file.open("rb") as opened:
                _check_private(file, os.fstat(opened.fileno()))
                token = opened.read(MOST_TOKEN + 1).decode().strip()
        except (OSError, UnicodeDecodeError) as e:
            raise UserError(f"--token-file {file} cannot be read: {e}") from e
    if token is None:
        return None
    # Requests bring it in a header, as one word of plain characters
    if len(token) < SHORTEST_TOKEN or not (token.isascii() and token.isprintable()) or " " in token:
        raise UserError(f"the token of {where} is no word of at least {SHORTEST_TOKEN} printable ASCII characters")
    return token
