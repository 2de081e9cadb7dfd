"""Every block of code and every command of the documentation runs, or is one we have."""

import ast
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import cv2
import dagster as dg
import httpx
import numpy as np
import pytest
import yaml

import training.recipe
import warehouse
from assets.definitions import defs
from core.paths import Workspace
from eval.server.chat import RunOptions
from ingest.registry import DatasetConfig
from pipeline.build import run_build
from pipeline.config import BuildFile, DatasetBuild, load_config
from pipeline.reward_model import closing_steps, reward_model_step
from tests.kits.bench_kit import make_progress_bench
from tests.kits.cli_kit import look_up, rows, run_here
from tests.kits.lake_kit import opened, query
from tests.kits.pages_kit import PAGES, ROOT, Block, blocks, words
from tests.kits.patience import PATIENCE_S
from tests.kits.small_sources import RECORDINGS, TRIMMED, write_v2
from tests.kits.tiny_lerobot import make_dataset
from training.recipe import Recipe, load_recipe
from warehouse.lake.statements import mark
from warehouse.releases.release import create_release, get_release

# What commands of the documentation print: as the page shows it, else what each command has to say


class OutputError(AssertionError):
    """A command ran, and printed something else than the page says."""


# Answers that say that there was nothing to show
NOTHING = re.compile(
    r"^(No rows\.|No \w+ yet.*|Nobody said .*|Neither holds an episode\.)$", re.MULTILINE
)
MASKS = (
    (r"\x1b\[[0-9;]*m", ""),
    (r"^[─\s]*$", ""),  # rules and empty lines
    (r"\b(tiny_cpu|laptop)-\w+-[0-9a-f]{8}\b", "MODEL"),
    (r"(?<![\w.])(?=[0-9a-f]*\d)(?=[0-9]*[a-f])[0-9a-f]{12,64}\b", "ID"),
    (r"(?<![\w.])-?\d[\d,]*(\.\d+)?(e[+-]?\d+)?\b", "#"),
    (r"# (B|kB|MB|GB)\b", "# BYTES"),
)


def masked(text: str) -> list[str]:
    """The lines of an output without what differs from corpus to corpus."""
    for pattern, replacement in MASKS:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def check_shown(shown_text: str, out: str, err: str) -> None:
    """Raises OutputError where a page shows other output than was printed; `...` stands for anything.

    Of what went to standard error a page may show some lines.
    """
    expected = _tight(masked(shown_text))
    notes = masked(err)
    shown_notes = [note for note in notes if _tight([note]) in expected]
    pattern = ".*?".join(re.escape(part.strip()) for part in expected.split("..."))
    printed_texts = [_tight([*lines, *masked(out)]) for lines in (shown_notes, notes)]
    if not any(re.fullmatch(pattern, text) for text in printed_texts):
        raise OutputError(f"the page shows\n{expected}\nand it printed\n{printed_texts[-1]}")


def _tight(lines: list[str]) -> str:
    """As one line, without the spaces that JSON may have."""
    return re.sub(r"\s*([{}\[\],:])\s*", r"\1", " ".join(lines))


def check_lines(shown_text: str, printed: str) -> None:
    """Raises OutputError where a shown line is neither beginning nor cells of a printed one."""
    printed_rows = _cells(printed)
    missing = [row for row in _cells(shown_text) if not _is_printed(row, printed_rows)]
    if missing:
        printed_text = "\n".join(masked(printed))
        raise OutputError(f"the page shows {missing}, and it printed\n{printed_text}")


def _cells(text: str) -> list[list[str]]:
    """The lines of an output, masked, as cells with two spaces or more between them."""
    for pattern, replacement in MASKS:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return [re.split(r"\s{2,}", line.strip()) for line in text.splitlines() if line.strip()]


def _is_printed(row: list[str], printed_rows: list[list[str]]) -> bool:
    for printed_row in printed_rows:
        cells = iter(printed_row)
        if all(cell in cells for cell in row):
            return True
        if " ".join([*printed_row, ""]).startswith(" ".join([*row, ""])):
            return True
    return False


def check_said(arguments: list[str], printed: str, folder: Path) -> None:
    """Raises OutputError where a command said, and wrote, nothing."""
    written = []
    if out := next((v for n, v in pairwise(arguments) if n == "--out"), None):
        place = folder / out
        written = [p for p in place.rglob("*") if p.is_file()] if place.is_dir() else [place]
    has_text = bool(printed.strip()) and not NOTHING.search(printed)
    if not (has_text or written) or not all(p.is_file() and p.stat().st_size for p in written):
        raise OutputError(f"{' '.join(arguments)} said, and wrote {written}:\n{printed}")


def console_parts(text: str) -> list[tuple[str, str]]:
    """(command, output shown below it) of a console block."""
    parts: list[tuple[str, str]] = []
    for line in text.replace("\\\n", " ").splitlines(keepends=True):
        if line.startswith("$ "):
            parts.append((line[2:].strip(), ""))
        else:
            command, shown_lines = parts[-1]
            parts[-1] = (command, shown_lines + line)
    assert all(words(command) for command, _ in parts)
    return parts


SERVERS = {"serve", "explore", "ui"}
# What a reader puts in the place of names that are another corpus's
MODEL = re.compile(r"(tiny_cpu|laptop)-(\w+)-[0-9a-f]{8}")
# Whether command, options and values are ones we have
ONLY_LOOKED_UP = yaml.safe_load((ROOT / "tests/data/looked_up.yaml").read_text())


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """What pages take for granted: a small corpus with releases, a model, a correction."""
    root = tmp_path_factory.mktemp("docs") / "project"
    root.mkdir()
    for name in ("samples", "configs", "docs", "benchmarks", "deploy", ".venv"):
        (root / name).symlink_to(ROOT / name)
    space = Workspace(root / "workspace")
    chosen = {"sim_short": tuple(range(16)), "sim_long": (0, 3)}
    builds = [
        b.model_copy(update={"episodes": chosen[b.name]})
        for b in load_config(ROOT / "configs/demo.toml")
    ]
    assert not run_build(space, builds, workers=1).failed
    query = "SELECT num_frames FROM episodes WHERE dataset = 'sim_short' AND episode_index = 0"
    ((frames,),) = rows(space.root, query)
    steps = [{"name": "Reach for the handle", "start_frame": 0, "end_frame": 20}]
    steps.append({"name": "Open the drawer", "start_frame": 20, "end_frame": frames})
    (root / "mine.jsonl").write_text(
        json.dumps({"dataset": "sim_short", "episode_index": 0, "segments": steps}) + "\n"
    )
    with opened(space) as lake:
        create_release(lake, "r5")
    assert run_here("say", "correction", root / "mine.jsonl", "--workspace", space.root) == 0
    assert not run_build(space, builds, workers=1).failed
    with opened(space) as lake:
        for name in ("demo", "summer"):
            create_release(lake, name)
        reward_model_step(
            lake, get_release(lake, "demo"), quick(load_recipe("tiny_cpu")), always=True
        )
        closing_steps(lake, "demo", quick(load_recipe("laptop")))
    make_dataset(root / "data/my_dataset")
    bench_lines = (
        (make_progress_bench(root / "bench") / "prog-bench/text-normal.jsonl")
        .read_text()
        .splitlines()
    )
    row_lines = [
        json.dumps({"meta_data": json.loads(row), "response": f"<score>{20 * n}%</score>"})
        for n, row in enumerate(bench_lines)
    ]
    for name in ("predictions", "A", "B"):
        (root / f"{name}.jsonl").write_text("\n".join(row_lines) + "\n")
    for name, page in (("my_build", "vlm"), ("my_embeddings", "sql")):
        config = next(b.text for b in blocks(ROOT / f"docs/{page}.md") if b.kind == "toml")
        (root / f"{name}.toml").write_text(config)
    cv2.imwrite(str(root / "0.png"), np.zeros((64, 64, 3), np.uint8))
    shutil.copy(next((ROOT / "samples/sim_short/videos").rglob("*.mp4")), root / "run.mp4")
    return root


def quick(recipe: Recipe) -> Recipe:
    """Two steps of small batches: what is shown is that it runs."""
    batch = min(4, recipe.train.batch)
    return recipe.model_copy(
        update={
            "train": recipe.train.model_copy(update={"steps": 2, "batch": batch, "warmup": 0.5})
        }
    )


def add_unsure_recordings(folder: Path) -> None:
    """A dataset of which runs 4 and 5 were cut after a person had tagged them."""
    space = Workspace(folder / "workspace")
    source = write_v2(folder / "my_robot", RECORDINGS[:6])
    build = DatasetBuild(dataset=DatasetConfig(name="my_robot", source=str(source)))
    assert not run_build(space, [build], workers=1).failed
    with opened(space) as lake:
        mark(lake, [("my_robot", 4), ("my_robot", 5)], "tag", "wanted", author="ada")
    cut_runs = [recording.without_last(TRIMMED) for recording in RECORDINGS[4:6]]
    write_v2(source, [*RECORDINGS[:4], *cut_runs])
    assert not run_build(space, [build], workers=1).failed


class Reader:
    """Somebody who does what a page says, in a project of their own."""

    def __init__(self, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.capfd = capfd
        self.servers = contextlib.ExitStack()
        self.address = ""
        self.printed = ""  # by the commands of the last block
        self.wrong: list[str] = []  # of outputs
        ((correction,),) = rows(folder / "workspace", "SELECT correction_id FROM corrections")
        ((motion,),) = rows(
            folder / "workspace", "SELECT label_run FROM label_runs WHERE annotator = 'motion'"
        )
        self.ids = {"3f6c2a91": correction, "3b93": motion, "5c80": "human/sim_short"}
        self.names: dict = {}

    def do(self, command: str, shown_output: str | None = None) -> None:
        """Do it, and look at what it prints; `shown_output`: as the page has it."""
        command = re.split(r"\s+# ", self.replaced(command))[0]
        command_words = [word.removeprefix(".venv/bin/") for word in words(command)]
        if "proccorpus" in command_words and any(re.search(p, command) for p in ONLY_LOOKED_UP):
            later_words = command_words[command_words.index("proccorpus") + 1 :]
            look_up(later_words[: later_words.index("&")] if "&" in later_words else later_words)
        elif command_words[0] in ("make", "python"):
            look_at(command_words)
        elif command_words[0] in ELSEWHERE or ASKS_IN_A_TERMINAL in command:
            return
        elif re.search(r"[|<>;&$]", command) or command_words[0] == "head":
            self.see(shown_output, *self.shell(command))
        elif command_words[1] in SERVERS:
            self.serve(command_words[1:])
        else:
            self.capfd.readouterr()
            code = run_here(*command_words[1:])
            out, err = self.capfd.readouterr()
            assert code == 0, err + out
            self.see(shown_output, out, err, command_words[1:])

    def see(
        self, shown_output: str | None, out: str, err: str, arguments: list[str] | None = None
    ) -> None:
        """Remember what is wrong with an output."""
        out, err = (text.replace(f"{self.folder}/", "") for text in (out, err))
        self.printed += out
        try:
            if shown_output is not None and shown_output.strip():
                check_shown(shown_output, out, err)
            elif arguments:
                check_said(arguments, err + out, self.folder)
        except OutputError as e:
            self.wrong.append(str(e))

    def replaced(self, text: str) -> str:
        """Names of the page's corpus by those of this one."""
        models = self.folder / "workspace/models"
        text = MODEL.sub(
            lambda m: max(models.glob(f"{m[1]}-{m[2]}-*"), key=os.path.getmtime).name, text
        )
        for name, own_id in self.ids.items():
            text = text.replace(name, own_id)
        text = text.replace("/data/my_dataset", str(self.folder / "data/my_dataset")).replace(
            "/bench", str(self.folder / "bench")
        )
        if self.address:
            text = text.replace("http://127.0.0.1:8700", self.address)
            text = text.replace("localhost:8700", self.address.removeprefix("http://"))
        return text

    def block(self, block: Block, shows: Block | None = None) -> None:
        """Do what a block says; `shows`: the block below it that has what is printed."""
        self.printed = ""
        if block.kind == "console":
            for command, shown_output in console_parts(block.text):
                self.do(command, shown_output)
        elif block.kind == "python":
            exec(self.replaced(block.text), self.names)
        elif block.kind == "sql":
            with warehouse.connect(self.folder / "workspace") as con:
                query(con, block.text)
        elif block.kind == "toml":
            BuildFile(**tomllib.loads(block.text))
        elif block.kind == "yaml":
            parsed_yaml = yaml.safe_load(block.text)
            if "source" in parsed_yaml:  # a dataset's entry, which the reader saves
                DatasetConfig(**parsed_yaml)
                (self.folder / f"{parsed_yaml['name']}.yaml").write_text(block.text)
            elif "ops" in parsed_yaml:  # a run's configuration, for Dagster's launchpad
                check_by_dagster(parsed_yaml)
            elif {"kind", "out"} <= parsed_yaml.keys():  # of the job export
                dg.validate_run_config(defs().resolve_job_def("export"), parsed_yaml)
            elif "reward" in parsed_yaml:  # RLinf's configuration, which asks our server
                RunOptions(**parsed_yaml["reward"]["api"]["sampling_params"]["proccorpus"])
            else:
                raise AssertionError("YAML of which nobody says who reads it")
        elif re.search(
            r"^\w+=", block.text, re.MULTILINE
        ):  # one script, whose lines need each other
            self.shell(self.replaced(block.text))
        else:
            for command in block.commands:
                # Longer than all others, and only done where it is shown what comes out
                if shows and command == "make demo":
                    command = ".venv/bin/proccorpus demo"
                    self.see(None, *self.shell(f"{command} --workspace made_by_demo"))
                else:
                    self.do(command)
        if shows:
            check_lines(shows.text, self.printed)

    def shell(self, script: str) -> tuple[str, str]:
        """What it printed, and what it said on standard error."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        process = subprocess.run(
            ["bash", "-euc", script], cwd=self.folder, env=os.environ | {"PATH": path},
            capture_output=True, text=True, timeout=900, check=False,
        )  # fmt: skip
        assert process.returncode == 0, f"{script}: {process.stdout}{process.stderr}"
        return process.stdout, process.stderr

    def serve(self, arguments: list[str]) -> None:
        """Starts it on a free port, until the page is read."""
        wants_any_port = "--port" in arguments
        if not wants_any_port:
            arguments = [*arguments, "--port", "0"]
        if arguments[0] == "explore":
            arguments.append("--no-open")
        command = [str(Path(sys.executable).parent / "proccorpus"), *arguments]
        log = self.folder / f"server-{len(list(self.folder.glob('server-*')))}.log"
        with log.open("w") as out:
            process = subprocess.Popen(
                command, cwd=self.folder, stdout=out, stderr=subprocess.STDOUT
            )
        self.servers.callback(stopped, process)
        address = wait_for_address(log, process)
        # A reward server prints its address bare
        assert httpx.get(address, follow_redirects=True, timeout=PATIENCE_S).status_code in (
            200,
            401,
        )
        # What follows on the page asks the server at the usual port, not one that was to take a free one
        if arguments[0] == "serve" and not wants_any_port:
            self.address = address


# tests/warehouse/shards/test_loader.py runs its blocks of Python, and checks what comes out
SEEN_TO = {"samples"}
# Pages whose reader builds runs of their own, in a corpus of its own
OWN_CORPUS = ("index",)
# Pages on which a text below commands is what they print, among others
OUTPUT_BELOW = {"README"}
ELSEWHERE = {
    "docker": "tests/assets/test_deploy_files.py validates what it is given",
    "bash": "tests/stack/test_deployment.py runs what is in deploy/",
    "mkdir": "a backup: tests/pipeline/test_doctor.py", "python3": "the same", "rsync": "the same",
    "cd": "", "cp": "", "apt-get": "", "uv": "",
    "rerun": "a viewer; tests/warehouse/exports/test_samples.py reads the file",
    "tensorboard": "a viewer of what tests/training writes",
}  # fmt: skip

ASKS_IN_A_TERMINAL = "openssl passwd"


def check_by_dagster(run_config: dict) -> None:
    """Raises DagsterInvalidConfigError where Dagster refuses a run's configuration."""
    ops = run_config["ops"]
    job = dg.define_asset_job("asked", selection=dg.AssetSelection.assets(*ops))
    dg.validate_run_config(
        dg.Definitions.merge(defs(), dg.Definitions(jobs=[job])).resolve_job_def("asked"),
        run_config,
    )


def look_at(command_words: list[str]) -> None:
    """A target of the Makefile, or a script with the options that it is given."""
    if command_words[0] == "make":
        subprocess.run(
            ["make", "-n", *command_words[1:]], cwd=ROOT, check=True, capture_output=True
        )
        return
    later_words = command_words[1:]
    if later_words[0] == "-m":
        module = ROOT / later_words[1].replace(".", "/")
        later_words = [
            str(module / "__main__.py" if module.is_dir() else module.with_suffix(".py")),
            *later_words[2:],
        ]
    script, *options = later_words
    text = text_with_imports(ROOT / script)
    # The benchmarks' runner makes options of keywords
    for option in [w[2:] for w in options if w.startswith("--")]:
        keyword = option.replace("-", "_")
        assert re.search(rf'"--{option}"|\b{keyword}=', text), f"{script} has no --{option}"


def text_with_imports(script: Path) -> str:
    """A script and our modules that it imports."""
    text = script.read_text()
    names = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    paths = [(ROOT / name.replace(".", "/")).with_suffix(".py") for name in names]
    return "\n".join([text, *(path.read_text() for path in paths if path.is_file())])


def wait_for_address(log: Path, process: subprocess.Popen) -> str:
    for _ in range(600):
        match = re.search(r"http://127\.0\.0\.1:\d+\S*", log.read_text())
        if match:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(match[0], timeout=PATIENCE_S)
                return match[0].rstrip("/.")
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
    raise AssertionError(f"no address within a minute: {log.read_text()}")


def stopped(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGINT)
    process.wait(PATIENCE_S)


@pytest.fixture
def reader(
    project: Path,
    tmp_path,
    monkeypatch,
    request,
    capfd,
) -> Iterator[Reader]:
    """In a copy of the project (some pages: without a corpus), with short recipes."""
    folder = tmp_path / "project"
    shutil.copytree(project, folder, symlinks=True)
    monkeypatch.chdir(folder)
    reader = Reader(folder, capfd)
    if "[recordings]" in request.node.name:
        add_unsure_recordings(folder)
    if any(page in request.node.name for page in OWN_CORPUS):
        shutil.rmtree(folder / "workspace")
    monkeypatch.setattr(training.recipe, "load_recipe", lambda *a, **k: quick(load_recipe(*a, **k)))
    with reader.servers:
        yield reader


@pytest.mark.docs
@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda p: p.stem)
def test_what_a_page_says_works(reader, page, capfd):
    of_page = blocks(page)
    for i, block in enumerate(of_page):
        below = of_page[i + 1] if i + 1 < len(of_page) else None
        has_output_below = (
            page.stem in OUTPUT_BELOW and block.kind == "sh" and below and below.kind == "text"
        )
        shows = below if has_output_below else None
        if page.stem in SEEN_TO and block.kind == "python":
            continue
        try:
            reader.block(block, shows)
        except Exception as e:
            output = "".join(capfd.readouterr())[-2000:]
            raise AssertionError(
                f"{page.name}:{block.line}: {type(e).__name__}: {e}\n{output}"
            ) from e
    assert not reader.wrong, f"{page.name}: " + "\n\n".join(reader.wrong)
