"""Ways to reach models: one protocol, an adapter for OpenAI-compatible servers, and one that needs no model at all."""

from holdfast.providers.classify import BILLING_MARKS, classify, classify_transport
from holdfast.providers.extractive import Extractive
from holdfast.providers.http import HttpStream
from holdfast.providers.openai import OpenAICompatible
from holdfast.providers.protocol import (
    Completed,
    Message,
    ModelCall,
    ModelEvent,
    Provider,
    TextDelta,
    Timeouts,
)
from holdfast.providers.retry_after import retry_after

__all__ = [
    "BILLING_MARKS",
    "Completed",
    "Extractive",
    "HttpStream",
    "Message",
    "ModelCall",
    "ModelEvent",
    "OpenAICompatible",
    "Provider",
    "TextDelta",
    "Timeouts",
    "classify",
    "classify_transport",
    "retry_after",
]
