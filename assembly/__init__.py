"""What a worker process is put together from; `worker.py` does it, with the settings."""

from assembly.connections import connect
from assembly.services import Services
from assembly.shared_state import SharedState, open_shared_state
from assembly.workers import build_workers, workflow_runner

__all__ = ["Services", "SharedState", "build_workers", "connect", "open_shared_state", "workflow_runner"]
