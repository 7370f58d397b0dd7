"""Where the program of a server is looked for: on `PATH`, then beside the Python that runs this process.

A server that was installed with pip lies beside that Python, which is on nobody's `PATH` unless its environment was
activated. `PATH` comes first: what stands there was put there on purpose.
"""

import os
import shutil
import sys
from pathlib import Path


def beside_python() -> Path:
    """Directory of the running interpreter, where pip puts programs; that of a virtual environment, not of its base."""
    return Path(sys.executable).parent


def find_program(command: str, path: str) -> str | None:
    """Where a program is.

    Args:
        command: Its name, or its path, which is taken as it is.
        path: Directories to look in first, as in `PATH`.

    Returns:
        Its path; none if there is no such file, or it may not be executed.
    """
    return shutil.which(command, path=os.pathsep.join([path, str(beside_python())] if path else [str(beside_python())]))


def not_found(command: str) -> str:
    """What to tell of a program that is not there, with the remedy; begins in the middle of a sentence."""
    if Path(command).name != command:
        return f"{command!r} is no program that can be started; install it there, or correct the path"
    return f"{command!r} is found neither on PATH nor in {beside_python()}, beside Python; install it, or name its path"
