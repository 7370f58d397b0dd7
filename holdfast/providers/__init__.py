"""Ways to reach models: one protocol, adapters for two wire formats, and one provider that needs no model at all."""

from holdfast.providers.anthropic import Anthropic
from holdfast.providers.anthropic_batch import AnthropicBatches
from holdfast.providers.batch import (
    BatchLine,
    BatchPhase,
    BatchProvider,
    BatchReply,
    BatchResult,
    BatchSearch,
    BatchState,
)
from holdfast.providers.classify import classify, classify_transport
from holdfast.providers.extractive import Extractive
from holdfast.providers.flavours import FLAVOURS, Flavour, FlavourName
from holdfast.providers.http import HttpStream
from holdfast.providers.marks import BILLING_MARKS
from holdfast.providers.openai import OpenAICompatible
from holdfast.providers.openai_batch import OpenAIBatches
from holdfast.providers.protocol import (
    Completed,
    Message,
    ModelCall,
    ModelEvent,
    Provider,
    TextDelta,
    Timeouts,
    ToolCallDelta,
)
from holdfast.providers.retry_after import retry_after

__all__ = [
    "BILLING_MARKS",
    "FLAVOURS",
    "Anthropic",
    "AnthropicBatches",
    "BatchLine",
    "BatchPhase",
    "BatchProvider",
    "BatchReply",
    "BatchResult",
    "BatchSearch",
    "BatchState",
    "Completed",
    "Extractive",
    "Flavour",
    "FlavourName",
    "HttpStream",
    "Message",
    "ModelCall",
    "ModelEvent",
    "OpenAIBatches",
    "OpenAICompatible",
    "Provider",
    "TextDelta",
    "Timeouts",
    "ToolCallDelta",
    "classify",
    "classify_transport",
    "retry_after",
]
