"""Starts a server program and sees to it that nothing of it outlives the process that wanted it.

A script of its own, started as `python -I -S leash.py SOCKET COMMAND...` in a session of its own; it imports nothing of
Holdfast. The socket is the leash: when its other end closes, even because the owner was killed, the whole process group
is asked to end and then killed. When the program ends by itself, its exit code goes through the socket, and what it
left behind is killed too.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading

GRACE_SECONDS = 1.0
"""How long the program may take to end after SIGTERM."""


def main() -> None:
    """Run the command given on the command line until it ends or the leash does."""
    leash = socket.socket(fileno=int(sys.argv[1]))
    # The group's requests to end are for the program; this process ends last.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        # The command is the configuration's; no other thread runs yet, so a function before `exec` is safe.
        program = subprocess.Popen(sys.argv[2:], preexec_fn=_listen_to_sigterm)  # noqa: S603
    except OSError as error:
        _tell(leash, f"start {error.errno}")
        return
    _let_go_of_streams()
    threading.Thread(target=_wait, args=(program, leash), daemon=True).start()
    # Nothing is ever sent this way: it returns when the other end is closed.
    leash.recv(1)
    os.killpg(0, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        program.wait(GRACE_SECONDS)
    os.killpg(0, signal.SIGKILL)


def _listen_to_sigterm() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _let_go_of_streams() -> None:
    """Only the program shall hold its streams, so that their end is its end."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)


def _wait(program: "subprocess.Popen[bytes]", leash: socket.socket) -> None:
    _tell(leash, f"exit {program.wait()}")
    os.killpg(0, signal.SIGKILL)


def _tell(leash: socket.socket, message: str) -> None:
    with contextlib.suppress(OSError):
        leash.sendall(message.encode())


if __name__ == "__main__":
    main()
