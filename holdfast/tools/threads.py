"""Runs synchronous tools, each in a thread of its own.

A thread cannot be stopped. In a pool, tools that hang would sooner or later take every place, and keep the process from
ending; here a call that is given up leaves nothing but its own thread behind.
"""

import asyncio
import contextvars
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

Result = TypeVar("Result")


async def in_thread(function: Callable[[], Result]) -> Result:
    """Run a function in a new thread and wait for it. When the waiting is cancelled, the thread goes on unheard."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()
    context = contextvars.copy_context()

    def tell(settle: Callable[[], None]) -> None:
        if not future.done():
            settle()

    def run() -> None:
        try:
            result = context.run(function)
        except StopIteration as stopped:  # which no future can carry
            settle = partial(future.set_exception, RuntimeError(f"the function raised {stopped!r}"))
        except BaseException as raised:
            settle = partial(future.set_exception, raised)
        else:
            settle = partial(future.set_result, result)
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(tell, settle)

    threading.Thread(target=run, name="tool", daemon=True).start()
    return await future
