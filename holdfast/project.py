"""A project's own code: it lies beside its configuration, where a console script does not look by itself."""

import sys
from pathlib import Path


def importable(config_dir: Path) -> None:
    """Let the modules beside a `config` directory be imported, after everything that is installed."""
    root = str(config_dir.resolve().parent)
    if root not in sys.path:
        sys.path.append(root)
