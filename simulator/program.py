"""Decides what each call of a model does: profile, then random faults, then the script, then the call's own header.

The more specific source overrides the less specific one field by field, so a scripted fault keeps the profile's
latencies. Faults by chance happen only to calls whose kind nobody stated.
"""

import random
import time
import tomllib
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from simulator.behaviour import (
    CALL_FIELDS,
    PROFILE_FIELDS,
    SCRIPT_FIELDS,
    Behaviour,
    BehaviourError,
    Kind,
    ModelProfile,
)
from simulator.fields import read_fields
from simulator.prices import Price

REALISTIC = Path(__file__).parent / "profiles" / "realistic.toml"
"""A profile for load: log-normal latencies, limits, and one fault in a hundred calls."""
DEMO = Path(__file__).parent / "profiles" / "demo.toml"
"""The demo models of `holdfast dev`."""
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

    def price(self, model: str) -> Price | None:
        """The price of a model."""
        return self.of(model).price

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
        return read_fields(table, {**CALL_FIELDS, **PROFILE_FIELDS}, where="profile")
    except BehaviourError as error:
        raise BehaviourError(str(error), field=f"{name}.{error.field}") from error


def _model_profile(given: Mapping[str, Any]) -> ModelProfile:
    behaviour = Behaviour(**{name: value for name, value in given.items() if name in _BEHAVIOUR_FIELDS})
    return ModelProfile(behaviour, **{name: value for name, value in given.items() if name not in _BEHAVIOUR_FIELDS})


def read_overrides(given: object) -> dict[str, Any]:
    """Check the behaviour fields that one call brings itself.

    Raises:
        BehaviourError: A field or value is unknown.
    """
    return read_fields(given, CALL_FIELDS, where="behaviour")


@dataclass(eq=False)
class _Scripted:
    model: str | None
    api_key: str | None
    remaining: int | None
    until: float | None
    overrides: Mapping[str, Any]

    def applies_to(self, model: str, api_key: str | None) -> bool:
        return self.model in (None, model) and self.api_key in (None, api_key)


class Program:
    """The profile and the script queue of one server.

    Args:
        profile: What happens unscripted.
        seed: Seeds every random draw: faults and latencies.
        clock: Seconds that never go backwards.
    """

    def __init__(self, profile: Profile, seed: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.profile = profile
        self.seed = seed
        self.latencies = random.Random(seed)  # noqa: S311  reproducible delays, not secrets
        self._faults: dict[str, random.Random] = {}
        self._clock = clock
        self._queue: deque[_Scripted] = deque()

    def enqueue(self, behaviours: Iterable[object]) -> int:
        """Append behaviours to the script: all of them, or none if one is wrong.

        Args:
            behaviours: Mappings of behaviour fields. Each may name the `model` and the `api_key` it waits for, and
                how many `times` it applies (once unless said; with `turns`, which are a conversation's, until it is
                cleared) or `for_ms` how many milliseconds from now it does.

        Returns:
            How many counted calls the script now holds.

        Raises:
            BehaviourError: A field or value is unknown.
        """
        accepted = []
        for given in behaviours:
            overrides = read_fields(given, {**CALL_FIELDS, **SCRIPT_FIELDS}, where="scripted behaviour")
            milliseconds = overrides.pop("for_ms", None)
            lasts = milliseconds is not None or bool(overrides.get("turns"))
            accepted.append(
                _Scripted(
                    model=overrides.pop("model", None),
                    api_key=overrides.pop("api_key", None),
                    remaining=overrides.pop("times", None if lasts else 1),
                    until=None if milliseconds is None else self._clock() + milliseconds / 1000,
                    overrides=overrides,
                )
            )
        self._queue.extend(accepted)
        return self._queued()

    def clear(self, model: str | None = None) -> int:
        """Forget the script, so that what was scripted to fail recovers.

        Args:
            model: Forget only what waits for this model; `None` forgets everything.

        Returns:
            How many counted calls the script still holds.
        """
        self._queue = deque(kept for kept in self._queue if model is not None and kept.model != model)
        return self._queued()

    def reset(self) -> None:
        """Forget the script and rewind the random draws."""
        self._queue.clear()
        self._faults.clear()
        self.latencies.seed(self.seed)

    def decide(self, model: str, own: Mapping[str, Any] | None, api_key: str | None = None) -> Behaviour:
        """The behaviour of the next call of a model.

        Whether it is a fault depends on the seed and how many calls of the model came before, not on other models.

        Args:
            model: The model asked for.
            own: Checked fields of the call's `X-Simulate` header. A call with the header leaves the script alone.
            api_key: The key the call came with.
        """
        profile = self.profile.of(model)
        overrides = self._take(model, api_key) if own is None else own
        behaviour = replace(profile.behaviour, **overrides) if overrides else profile.behaviour
        if profile.fault_probability and "kind" not in overrides:
            draw = self._faults.get(model)
            if draw is None:
                draw = self._faults[model] = random.Random(f"{self.seed}\0{model}")  # noqa: S311
            if draw.random() < profile.fault_probability:
                behaviour = replace(behaviour, kind=_fault(profile, draw))
        return behaviour

    def _take(self, model: str, api_key: str | None) -> Mapping[str, Any]:
        if not self._queue:
            return {}
        now = self._clock()
        for scripted in list(self._queue):
            if scripted.until is not None and scripted.until <= now:
                self._queue.remove(scripted)
            elif scripted.applies_to(model, api_key):
                if scripted.remaining is not None:
                    scripted.remaining -= 1
                    if scripted.remaining == 0:
                        self._queue.remove(scripted)
                return scripted.overrides
        return {}

    def _queued(self) -> int:
        return sum(scripted.remaining or 0 for scripted in self._queue)


def _fault(profile: ModelProfile, draw: random.Random) -> Kind:
    if not profile.fault_kinds:
        return profile.fault_kind
    kinds, weights = zip(*profile.fault_kinds, strict=True)
    drawn: Kind = draw.choices(kinds, weights)[0]
    return drawn
