"""Deterministic orchestration: decides what happens next, never does I/O."""
