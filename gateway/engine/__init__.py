"""The one door between the HTTP edge and the workflow engine; nothing else in the gateway knows there is one."""

from gateway.engine.door import Engine, connect

__all__ = ["Engine", "connect"]
