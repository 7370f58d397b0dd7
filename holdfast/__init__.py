"""Holdfast: agentic LLM requests that survive crashes, never overspend, wait for people, and can be replayed.

This package is the domain library. It knows nothing of the workflow engine, the HTTP edge or the command line:
everything here can be used and tested without them.
"""

__version__ = "0.1.0"
