"""The processes of a run on one machine: started alike, watched, and ended together.

The process that the user started computes nothing. It runs its own command line again, once for
each device, and says what became of them. So the death of any process, even by kill -9, ends the
others in bounded time, and one sentence tells why.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from cvmh.config import TrainSettings
from cvmh.errors import CvmhError, LostProcessError, TrainingError

# Set for the processes that this module starts: the folder in which they leave messages.
WATCHED = "CVMH_WATCHED"
# Also where the user's was a console script, which is no Python file on every system.
COMMAND = (sys.executable, "-m", "cvmh.cli.main")
# How a watched process ends when it lost the others, which says nothing of the cause.
LOST = 76
INTERRUPTED = 130
# Seconds between looks at the processes; for one that lost the others until the one that failed
# has ended too; for all of them to end by themselves when they are asked to.
LOOK, CAUSE, END = 0.1, 10.0, 5.0


def is_watched() -> bool:
    """Say whether this process was started by :func:`run_processes`."""
    return WATCHED in os.environ


def leave_message(error: CvmhError) -> NoReturn:
    """End a watched process, and let its starter say why: one line, however many failed."""
    if isinstance(error, LostProcessError):
        sys.exit(LOST)
    message = Path(os.environ[WATCHED]) / os.environ["LOCAL_RANK"]
    message.write_text(str(error), encoding="utf-8")
    sys.exit(1)


def end_with_starter() -> None:
    """End this process at once when the one that started it is gone, however that ended."""
    threading.Thread(target=_wait_for_starter, daemon=True, name="starter").start()


def run_processes(arguments: Sequence[str], settings: TrainSettings, *, out: Path) -> None:
    """Run ``cvmh`` with some arguments in one process for each device, until all are done.

    Args:
        arguments: the command line without the program.
        settings: how many processes there are.
        out: the run folder, for the message.

    Raises:
        TrainingError: a process failed, or was killed.
        LostProcessError: the processes lost each other, or a process of another machine.
        SystemExit: a process failed, and has said why itself.
        KeyboardInterrupt: the user stopped one of them.
    """
    with tempfile.TemporaryDirectory(prefix="cvmh-") as messages:
        ranks = range(settings.devices)
        shared = {**_shared_environment(settings), WATCHED: messages}
        processes = [_start(arguments, {**shared, "LOCAL_RANK": str(rank)}) for rank in ranks]
        try:
            while not all(process.poll() == 0 for process in processes):
                if any(process.poll() for process in processes):
                    _raise_failure(_causes(processes), settings, Path(messages), out)
                time.sleep(LOOK)
        finally:
            _end(processes)


def _shared_environment(settings: TrainSettings) -> dict[str, str]:
    """Return the variables that the processes of this machine have in common."""
    # Else each would start as many threads as there are cores.
    threads = max(1, (os.cpu_count() or 1) // settings.devices)
    variables = {"OMP_NUM_THREADS": str(threads), **os.environ}
    if settings.nodes == 1:
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
        variables = {**meeting, **variables}
    return variables


def _start(arguments: Sequence[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, *arguments],
        env=environment,
        # A pipe that nobody writes to: its end tells that this process is gone.
        stdin=subprocess.PIPE,
        # Interrupts from the terminal come here alone, and are handed on once.
        start_new_session=True,
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _causes(processes: list[subprocess.Popen[bytes]]) -> dict[int, int]:
    """Return the exit codes of processes that failed, by local rank; wait for one that tells why.

    The first to end may be one that another's end was noticed in.
    """
    deadline = time.monotonic() + CAUSE
    while True:
        codes = {rank: process.poll() for rank, process in enumerate(processes)}
        failed = {rank: code for rank, code in codes.items() if code}
        own = {rank: code for rank, code in failed.items() if code != LOST}
        if own or None not in codes.values() or time.monotonic() > deadline:
            return own or failed
        time.sleep(LOOK)


def _raise_failure(
    failed: dict[int, int], settings: TrainSettings, messages: Path, out: Path
) -> NoReturn:
    rank, code = next(iter(failed.items()))
    message = messages / str(rank)
    if message.exists():
        text = message.read_text(encoding="utf-8")
        raise TrainingError(f"process {rank + 1} of {settings.devices}: {text}")
    if code in (INTERRUPTED, -signal.SIGINT):
        raise KeyboardInterrupt
    if code < 0:
        raise TrainingError(
            f"process {rank + 1} of {settings.devices} was ended by {signal.Signals(-code).name}, "
            f"so all were; continue with: cvmh train --resume --out {out}"
        )
    if code == LOST:
        raise LostProcessError(
            "the processes of the run lost each other, or one on another machine ended; see what "
            f"it said there, and continue with: cvmh train --resume --out {out}"
        )
    sys.exit(code)


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    running = [process for process in processes if process.poll() is None]
    try:
        for process in running:
            if sys.platform == "win32":
                process.terminate()
            else:
                process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + END
        while time.monotonic() < deadline and any(process.poll() is None for process in running):
            time.sleep(LOOK)
    finally:
        # One that waits for another in a collective hears no interrupt.
        for process in running:
            process.kill()
        for process in processes:
            process.wait()
            if process.stdin is not None:
                process.stdin.close()


def _wait_for_starter() -> None:
    # Not through sys.stdin, whose lock a forked process would inherit.
    while os.read(0, 1):
        pass
    os._exit(1)
