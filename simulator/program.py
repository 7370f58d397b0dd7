"""Decides what each chat completion does: profile, then random faults, then the script, then the call's own header.

The more specific source overrides the less specific one field by field, so a scripted fault keeps the profile's
latencies. Faults by chance happen only to calls whose kind nobody stated.
"""

import random
import tomllib
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from simulator.behaviour import (
    PROFILE_FIELDS,
    SCRIPT_FIELDS,
    Behaviour,
    BehaviourError,
    ModelProfile,
    read_fields,
)

_BEHAVIOUR_FIELDS = frozenset(entry.name for entry in fields(Behaviour))


class ProfileError(Exception):
    """A profile file that cannot be used. The message names the file, the table and the key."""


@dataclass(frozen=True)
class Profile:
    """What happens when nobody scripts a call."""

    default: ModelProfile = field(default_factory=ModelProfile)
    models: Mapping[str, ModelProfile] = field(default_factory=dict)
    """Per-model profiles, the default's fields filled in."""

    def of(self, model: str) -> ModelProfile:
        """The profile of a model."""
        return self.models.get(model, self.default)

    @staticmethod
    def read(given: Mapping[str, Any]) -> "Profile":
        """Read `{"default": {...}, "models": {name: {...}}}`.

        Raises:
            BehaviourError: A table, field or value is unknown; `field` is dotted, e.g. `models.gpt.kind`.
        """
        unknown = sorted(set(given) - {"default", "models"})
        if unknown:
            raise BehaviourError(
                f"Table {unknown[0]!r} is unknown; a profile has `default` and `models`.", field=unknown[0]
            )
        base = _read_table(given.get("default", {}), "default")
        models = given.get("models", {})
        if not isinstance(models, Mapping):
            raise BehaviourError("`models` is a table of tables, one a model.", field="models")
        return Profile(
            default=_model_profile(base),
            models={
                name: _model_profile(base | _read_table(table, f"models.{name}")) for name, table in models.items()
            },
        )

    @staticmethod
    def load(path: Path) -> "Profile":
        """Read a profile from a TOML file.

        Raises:
            ProfileError: The file is missing, is not TOML, or has a wrong key.
        """
        try:
            return Profile.read(tomllib.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise ProfileError(f"Profile {str(path)!r} cannot be read: {error.strerror}.") from error
        except tomllib.TOMLDecodeError as error:
            raise ProfileError(f"Profile {str(path)!r} is not TOML: {error}.") from error
        except BehaviourError as error:
            raise ProfileError(f"Profile {str(path)!r}, key {error.field!r}: {error}") from error


def _read_table(table: object, name: str) -> dict[str, Any]:
    try:
        return read_fields(table, also=PROFILE_FIELDS, where="profile")
    except BehaviourError as error:
        raise BehaviourError(str(error), field=f"{name}.{error.field}") from error


def _model_profile(given: Mapping[str, Any]) -> ModelProfile:
    behaviour = Behaviour(**{name: value for name, value in given.items() if name in _BEHAVIOUR_FIELDS})
    return ModelProfile(behaviour, **{name: value for name, value in given.items() if name not in _BEHAVIOUR_FIELDS})


@dataclass(eq=False)
class _Scripted:
    model: str | None
    overrides: Mapping[str, Any]
    remaining: int


class Program:
    """The profile and the script queue of one server.

    Args:
        profile: What happens unscripted.
        seed: Seeds every random draw: faults and latencies.
    """

    def __init__(self, profile: Profile, seed: int) -> None:
        self.profile = profile
        self.seed = seed
        self.random = random.Random(seed)  # noqa: S311  reproducible faults, not secrets
        self._queue: deque[_Scripted] = deque()

    def enqueue(self, behaviours: Iterable[object]) -> int:
        """Append behaviours to the script: all of them, or none if one is wrong.

        Args:
            behaviours: Mappings of behaviour fields, each with an optional `model` it waits for and an optional
                number of `times` it applies.

        Returns:
            How many calls the script now holds.

        Raises:
            BehaviourError: A field or value is unknown.
        """
        accepted = []
        for given in behaviours:
            overrides = read_fields(given, also=SCRIPT_FIELDS, where="scripted behaviour")
            accepted.append(_Scripted(overrides.pop("model", None), overrides, overrides.pop("times", 1)))
        self._queue.extend(accepted)
        return sum(scripted.remaining for scripted in self._queue)

    def reset(self) -> None:
        """Forget the script and rewind the random draws."""
        self._queue.clear()
        self.random.seed(self.seed)

    def decide(self, model: str, own: Mapping[str, Any] | None) -> Behaviour:
        """The behaviour of the next call of a model.

        Args:
            model: The model asked for.
            own: Checked fields of the call's `X-Simulate` header. A call with the header leaves the script alone.
        """
        profile = self.profile.of(model)
        overrides = self._take(model) if own is None else own
        behaviour = replace(profile.behaviour, **overrides)
        if "kind" not in overrides and self.random.random() < profile.fault_probability:
            behaviour = replace(behaviour, kind=profile.fault_kind)
        return behaviour

    def _take(self, model: str) -> Mapping[str, Any]:
        for scripted in self._queue:
            if scripted.model in (None, model):
                scripted.remaining -= 1
                if scripted.remaining == 0:
                    self._queue.remove(scripted)
                return scripted.overrides
        return {}
