"""Python loads this at the start of a process under test: at one of its file operations, or a moment after, the process
or its group is killed; `torn`: when the file that is being written has so many bytes.

FAULT, a variable, has it as JSON: root (files below it count), kind (of operation), number (from 1), delay_s, kill
(worker, group, torn), mark (made by whoever strikes first: one kill per run).
"""

import atexit
import json
import os
import resource
import signal
import sys
import threading

TORN_BYTES = 200
WRITING = os.O_WRONLY | os.O_RDWR


def kind_of(event, args, root):
    """What an operation on a file is called, and the file; None: it is none of ours."""
    if event == "open" and isinstance(args[0], str) and args[0].startswith(root):
        mode = args[1]
        flags = args[2]
        if args[0].endswith(".lock"):
            return "lock", args[0]
        writes = any(c in mode for c in "wax+") if isinstance(mode, str) else flags & WRITING
        if writes:
            return ("open", args[0])
        return None
    if event == "os.rename" and os.fspath(args[1]).startswith(root):
        return "rename", os.fspath(args[1])
    if event == "os.remove" and os.fspath(args[0]).startswith(root):
        return "delete", os.fspath(args[0])
    return None


def is_worker():
    parent = getattr(
        sys.modules.get("multiprocessing.process"), "parent_process", None
    )  # None while it is imported
    return parent is not None and parent() is not None


def install(plan):
    state = {"count": 0}

    def strike(subject, path):
        try:
            handle = os.open(plan["mark"], os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            return
        text = json.dumps(
            {"what": subject, "path": path[len(plan["root"]) :], "worker": is_worker()}
        )
        os.write(handle, text.encode())
        os.close(handle)
        if plan["kill"] == "torn":
            resource.setrlimit(resource.RLIMIT_FSIZE, (TORN_BYTES, TORN_BYTES))
            # Where only shorter files follow, the process comes to its end: nothing was torn
            atexit.register(os.unlink, plan["mark"])
            return
        if plan["kill"] == "group":
            os.killpg(os.getpgrp(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    def hook(event, args):
        if event not in ("open", "os.rename", "os.remove") or (
            plan["kill"] != "group" and not is_worker()
        ):
            return
        event_kind = kind_of(event, args, plan["root"])
        if event_kind is None or plan["kind"] not in ("any", event_kind[0]):
            return
        state["count"] += 1
        if state["count"] == plan["number"]:
            if plan["delay_s"]:
                timer = threading.Timer(
                    plan["delay_s"], strike, (f"after {event_kind[0]}", event_kind[1])
                )
                timer.daemon = True
                timer.start()
            else:
                strike(
                    f"{'amid' if plan['kill'] == 'torn' else 'before'} {event_kind[0]}",
                    event_kind[1],
                )

    if plan["kill"] == "torn":
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # which Python ignores
    sys.addaudithook(hook)


if "FAULT" in os.environ:
    install(json.loads(os.environ["FAULT"]))
