"""Checks of model replies: JSON against a schema, free text against its citations, and the repair ladder."""

from holdfast.validation.citations import cite, cited_markers, renumbered
from holdfast.validation.confidence import confidence_in
from holdfast.validation.effort import can_be_counted, can_multiply, is_too_much
from holdfast.validation.json_reply import ParsedJson, read_json
from holdfast.validation.ladder import Validator, Verdict
from holdfast.validation.schema import check_schema, compile_schema, flaw, json_pointer, known_pointer

__all__ = [
    "ParsedJson",
    "Validator",
    "Verdict",
    "can_be_counted",
    "can_multiply",
    "check_schema",
    "cite",
    "cited_markers",
    "compile_schema",
    "confidence_in",
    "flaw",
    "is_too_much",
    "json_pointer",
    "known_pointer",
    "read_json",
    "renumbered",
]
