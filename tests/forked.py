"""The real commands, each in a process of its own, forked from one that has imported them: importing takes longest."""

import atexit
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FORK = """
import importlib, json, os, resource, signal, sys, traceback
for line in sys.stdin:
    given = json.loads(line)
    main = importlib.import_module(given["module"]).main
    for name in given["imports"]:
        importlib.import_module(name)
    child = os.fork()
    if not child:
        code = 70
        try:
            for number, (path, flags) in enumerate(given["files"]):
                os.dup2(os.open(path, flags), number)
            sys.stdin = open(0, errors="surrogateescape")
            sys.argv = [given["module"], *given["arguments"]]
            os.environ.update(given["environment"])
            os.chdir(given["folder"])
            if given["largest"]:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (given["largest"], given["largest"]))
            code = main()
        except SystemExit as end:
            code = end.code
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)
    print(child, flush=True)
    _, status, used = os.wait4(child, 0)
    print(os.waitstatus_to_exitcode(status), used.ru_maxrss, flush=True)
"""


IMPORTS = {command: ["hf_captioner.training.trainer"] for command in ("train", "evaluate")}
"""What a command of `hf_captioner.cli` imports only where it is given."""


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str
    memory: int
    """Its peak, in KiB."""


@cache
def _parent() -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    parent = subprocess.Popen(
        [sys.executable, "-c", FORK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    atexit.register(parent.communicate)  # the end of its input ends it
    return parent


def run(
    module: str,
    *arguments: object,
    stdin: str = "",
    folder: Path | None = None,
    environment: dict[str, str] | None = None,
    largest: int | None = None,
    watch: Callable[[int], object] | None = None,
) -> Done:
    """`python -m MODULE ARGUMENTS`; `watch` is called with the process' id while it runs. largest: bytes of a file from
    which on the disk is full."""
    parent = _parent()
    assert parent.stdin and parent.stdout
    with tempfile.TemporaryDirectory() as temporary:
        given, out, err = (Path(temporary) / name for name in ("in", "out", "err"))
        given.write_text(stdin, errors="surrogateescape")
        write = os.O_WRONLY | os.O_CREAT
        request = {
            "module": module,
            "imports": IMPORTS.get(str(arguments[0]), []) if arguments else [],
            "arguments": [str(argument) for argument in arguments],
            "files": [[str(given), os.O_RDONLY], [str(out), write], [str(err), write]],
            "folder": str(folder or Path.cwd()),
            "environment": environment or {},
            "largest": largest,
        }
        print(json.dumps(request), file=parent.stdin, flush=True)
        child = int(parent.stdout.readline())
        if watch:
            watch(child)
        code, memory = map(int, parent.stdout.readline().split())
        said = [path.read_text(errors="surrogateescape") for path in (out, err)]
        return Done(code, *said, memory)


def killed(module: str, *arguments: object, times: int, longest: float) -> Done:
    """The command, killed with SIGKILL after a random while, at most `longest` seconds, so many times; then let be."""
    draw = random.Random(times)
    for _ in range(times):
        done = run(module, *arguments, watch=lambda child: (time.sleep(draw.uniform(0, longest)), os.kill(child, 9)))
        assert done.returncode == -9, f"it ended before it was killed: {done.stderr}"
    return run(module, *arguments)
