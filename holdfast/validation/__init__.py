"""Checks of model replies: JSON against a schema, free text against its citations, and the repair ladder."""

from holdfast.validation.citations import cite, cited_markers
from holdfast.validation.confidence import confidence_in
from holdfast.validation.json_reply import ParsedJson, read_json
from holdfast.validation.ladder import Validator, Verdict
from holdfast.validation.schema import check_schema, compile_schema, json_pointer

__all__ = [
    "ParsedJson",
    "Validator",
    "Verdict",
    "check_schema",
    "cite",
    "cited_markers",
    "compile_schema",
    "confidence_in",
    "json_pointer",
    "read_json",
]
