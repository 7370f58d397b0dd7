"""A chat completion as a stream: text as it is written, if it may be shown, and at the end what remains.

OpenAI's form has no way to take text back. So when a newer attempt replaces one whose text was shown, its text is held
until it is known to begin with what was shown; then it goes on from there. If it does not, the stream ends with an
error. No text is ever sent twice or mixed.
"""

import asyncio
from contextlib import aclosing

from gateway.chat import replies
from gateway.context import Gateway
from gateway.event_stream import Sink
from gateway.intake import Accepted
from gateway.problems import Problem, openai_error, problem_of
from gateway.text import Shown
from holdfast.errors import HoldfastError


class ChatStream:
    """Writes one completion.

    Args:
        gateway: What it reads from.
        accepted: The request.
        with_usage: Whether the client asked for the usage.
    """

    def __init__(self, gateway: Gateway, accepted: Accepted, *, with_usage: bool) -> None:
        self._gateway = gateway
        self._accepted = accepted
        self._chunks = replies.Chunks(accepted.execution, with_usage=with_usage)
        self._shown = Shown()
        self._begun = False

    async def write(self, sink: Sink) -> None:
        """Write until the answer is complete, or until it is known that there will be none."""
        try:
            await self._write(sink)
        except Problem as problem:
            await self._fail(sink, problem)
        except HoldfastError as error:
            if (problem_known := problem_of(error)) is None:
                raise
            await self._fail(sink, problem_known)

    async def on_stop(self, sink: Sink) -> None:
        """Tell the client that the server goes away before the answer is there."""
        await self._fail(sink, replies.stopping(self._accepted.execution))

    async def on_gone(self) -> None:
        """The client went away."""
        await self._gateway.abandon(self._accepted)

    async def _write(self, sink: Sink) -> None:
        gateway, execution = self._gateway, self._accepted.execution
        if not execution.status.is_final:
            waiting = asyncio.ensure_future(
                gateway.settle(execution, gateway.settings.chat_wait, through_approval=True)
            )
            text = asyncio.ensure_future(self._text(sink))
            try:
                await asyncio.wait((waiting, text), return_when=asyncio.FIRST_COMPLETED)
                if text.done():
                    text.result()
                execution = await waiting
            finally:
                text.cancel()
                waiting.cancel()
                await asyncio.gather(text, waiting, return_exceptions=True)
        execution, document = await gateway.complete(execution)
        if document is None or execution.answer is None:
            raise replies.no_answer(execution)
        if not self._shown.begins(document.text):
            raise replies.restarted(execution)
        await self._open(sink)
        await sink.write(self._chunks.last(execution.answer, document, document.text[self._shown.offset :]))

    async def _text(self, sink: Sink) -> None:
        execution = self._accepted.execution
        if self._gateway.writes_json(execution):
            # It may still have to be mended, and this form cannot take anything back.
            return
        if self._accepted.agent.plan.toolbox is not None:
            # What a model says before it calls a tool is no part of the answer, and looks like it while it is written.
            return
        held: str | None = None
        async with aclosing(self._gateway.text.follow(execution, Shown(), as_json=False)) as pieces:
            async for piece in pieces:
                if piece.kind == "restart":
                    held = ""
                    continue
                text = piece.text
                if held is not None:
                    held += text
                    if len(held) < self._shown.offset:
                        continue
                    if not self._shown.begins(held):
                        raise replies.restarted(execution)
                    text, held = held[self._shown.offset :], None
                if text:
                    await self._open(sink)
                    await sink.write(self._chunks.text(text))
                    self._shown = self._shown.plus(text)

    async def _open(self, sink: Sink) -> None:
        if not self._begun:
            self._begun = True
            await sink.write(self._chunks.role())

    async def _fail(self, sink: Sink, problem: Problem) -> None:
        """As a response of its own while nothing was sent, else as the stream's last event."""
        if not sink.begun:
            raise problem
        _, error = openai_error(problem)
        await sink.write(replies.error_frame(error))
