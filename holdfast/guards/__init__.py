"""Input guards: one spelling, refusal rules, and reversible masking of personal data."""

from holdfast.guards.normalise import matching_view, normalise
from holdfast.guards.personal_data import PersonalDataDetector
from holdfast.guards.placeholders import Masked, mask, restore, restore_within
from holdfast.guards.refusal import MAX_INPUT_BYTES, check_refusal_patterns, refusal_of_content, refusal_of_size
from holdfast.guards.sanitizer import SanitizedText, Sanitizer
from holdfast.guards.spans import KINDS, Kind, Span
from holdfast.guards.streaming import JsonStreamRestorer, StreamRestorer

__all__ = [
    "KINDS",
    "MAX_INPUT_BYTES",
    "JsonStreamRestorer",
    "Kind",
    "Masked",
    "PersonalDataDetector",
    "SanitizedText",
    "Sanitizer",
    "Span",
    "StreamRestorer",
    "check_refusal_patterns",
    "mask",
    "matching_view",
    "normalise",
    "refusal_of_content",
    "refusal_of_size",
    "restore",
    "restore_within",
]
