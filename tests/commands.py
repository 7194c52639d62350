"""Commands in processes of their own that start in milliseconds, forked from a server that has torch loaded, so that
many can be killed or run at once."""

import multiprocessing
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread

try:
    import resource
except ImportError:
    resource = None

SERVER = multiprocessing.get_context("forkserver")
_PLOTS = ("matplotlib.figure", "matplotlib.backends.backend_agg", "torch.utils.tensorboard")
_CONSOLE = ("typer", "rich.progress")  # not mdrn_cli.cli, which looks at the environment
_NETWORK = ("mdrn_cli.training", "mdrn_cli.engine", "torch._dynamo")  # the last is what torch's optimizers load
SERVER.set_forkserver_preload(["mdrn_cli.batch", "pyvips", "commands", *_NETWORK, *_CONSOLE, *_PLOTS])


@dataclass(frozen=True)
class Command:
    """A command under way; its stdout and stderr are in files."""

    process: BaseProcess
    stdout: Path
    stderr: Path

    def kill(self) -> bool:
        """SIGKILL; whether that is what ended it."""
        self.process.kill()
        self.process.join()
        return self.process.exitcode == -9

    def wait(self, timeout: float = 600) -> "Finished":
        self.process.join(timeout)
        hangs = self.process.exitcode is None and self.kill()  # else the tests would wait for it at their end
        assert not hangs, "it hangs"
        assert self.process.exitcode is not None
        peak = self.stdout.with_suffix(".peak")
        memory = float(peak.read_text()) if peak.is_file() else 0.0
        return Finished(self.process.exitcode, self.stdout.read_bytes(), self.stderr.read_text(), memory)


@dataclass(frozen=True)
class Finished:
    """What became of a command; its peak of resident memory in MiB, 0 where it was killed."""

    returncode: int
    output: bytes
    stderr: str
    peak: float

    @property
    def stdout(self) -> str:
        """What it printed, where that is text."""
        return self.output.decode()


def start(
    *arguments: object, logs: Path, cwd: Path | None = None, piped: bytes | None = None, **environment: str
) -> Command:
    """`mdrn` with arguments, as a user runs it but for how the process comes to be.

    Args:
        arguments: of the command line.
        logs: folder for what it prints.
        cwd: folder to run in.
        piped: what comes through a pipe on stdin, if that is one.
        environment: variables to set beside those of this process.
    """
    logs.mkdir(exist_ok=True)
    number = len(list(logs.iterdir()))
    stdout, stderr = logs / f"{number}.stdout", logs / f"{number}.stderr"
    stdout.touch()
    stderr.touch()
    environment = {**os.environ, "COLUMNS": "200", **environment}
    folder = str(cwd or Path.cwd())
    theirs, ours = SERVER.Pipe(duplex=False)
    about = str(stdout), str(stderr), folder, environment, None if piped is None else theirs
    process = SERVER.Process(target=_run, args=([*map(str, arguments)], *about))
    process.start()
    theirs.close()
    Thread(target=_feed, args=(ours, piped or b""), daemon=True).start()
    return Command(process, stdout, stderr)


def _feed(pipe: Connection, data: bytes) -> None:
    with pipe, suppress(BrokenPipeError):  # of a command that does not read it
        while data:
            data = data[os.write(pipe.fileno(), data) :]


def _run(
    arguments: list[str],
    stdout: str,
    stderr: str,
    folder: str,
    environment: dict[str, str],
    stdin: Connection | None,
) -> None:
    if stdin:
        os.dup2(stdin.fileno(), 0)
        stdin.close()
        sys.stdin = os.fdopen(0, closefd=False)  # multiprocessing has closed it
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for path, descriptor in ((stdout, 1), (stderr, 2)):
        opened = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.argv = ["mdrn", *arguments]
    from mdrn_cli.cli import main

    code = main()
    if resource:  # there is none on Windows
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
        Path(stdout).with_suffix(".peak").write_text(str(peak))
    sys.exit(code)
