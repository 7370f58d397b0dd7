"""The name of a table that can be read."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A table or view that may be read."""

    schema: str
    """Empty on SQLite."""
    name: str

    @property
    def shown(self) -> str:
        """As a model should write it."""
        return self.name if self.schema in ("", "public") else f"{self.schema}.{self.name}"
