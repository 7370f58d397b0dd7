"""What the endpoints of one server share: program, bill, prompt cache, rate limits, batches, log of calls."""

from collections.abc import Callable

from simulator.batches import Batches
from simulator.behaviour import Behaviour
from simulator.bill import Bill, BillEntry
from simulator.calls import Calls, credential_digest
from simulator.model_request import ModelRequest
from simulator.prices import Prompt
from simulator.program import Program
from simulator.prompt_cache import PromptCache
from simulator.rate_limits import RateLimit
from simulator.wire import Wire

_UNLIMITED = RateLimit(None, None)


class Service:
    """The state behind the endpoints.

    Args:
        program: Decides each call's behaviour.
        bill: Records what is generated.
    """

    def __init__(self, program: Program, bill: Bill) -> None:
        self.program = program
        self.bill = bill
        self.calls = Calls()
        self.batches = Batches(program.seed)
        self._cache = PromptCache()
        self._limits: dict[str, RateLimit] = {}
        self._forget: list[Callable[[], None]] = []

    def when_reset(self, forget: Callable[[], None]) -> None:
        """Have a part of the server forget its state at every reset."""
        self._forget.append(forget)

    def reset(self) -> None:
        """Return to the beginning: nothing billed, scripted, cached or logged, draws rewound, rate limits filled up."""
        self.program.reset()
        self.bill.reset()
        self.calls.reset()
        self.batches.reset()
        self._cache.reset()
        self._limits.clear()
        for forget in self._forget:
            forget()

    def limit(self, model: str) -> RateLimit:
        """The rate limits of a model."""
        profile = self.program.profile.of(model)
        if profile.requests_per_minute is None and profile.tokens_per_minute is None:
            return _UNLIMITED
        if model not in self._limits:
            self._limits[model] = RateLimit(profile.requests_per_minute, profile.tokens_per_minute)
        return self._limits[model]

    def accept(
        self,
        wire: Wire,
        request: ModelRequest,
        behaviour: Behaviour,
        *,
        api_key: str | None,
        client_request_id: str | None,
        batch: bool = False,
    ) -> BillEntry:
        """Enter a request on the bill, its prompt split by what the prompt cache holds."""
        return self.bill.accept(
            wire.new_id(),
            request.model,
            client_request_id,
            self._prompt(wire, request, behaviour),
            credential=None if api_key is None else credential_digest(api_key),
            batch=batch,
        )

    def _prompt(self, wire: Wire, request: ModelRequest, behaviour: Behaviour) -> Prompt:
        if behaviour.cached_tokens is None and behaviour.cache_write_tokens is None:
            minimum = self.program.profile.of(request.model).cache_minimum_tokens
            return self._cache.split(request, minimum, charges_writes=wire.charges_cache_writes)
        read = min(behaviour.cached_tokens or 0, request.prompt_tokens)
        written = min(behaviour.cache_write_tokens or 0, request.prompt_tokens - read)
        return Prompt(request.prompt_tokens - read - written, read, written)
