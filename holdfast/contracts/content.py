"""Long or private text travels as a reference; the bytes stay in the content store."""

from typing import Annotated

from pydantic import Field, StringConstraints

from holdfast.contracts.base import Contract

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256 digest, 64 lowercase hexadecimal digits."""


class ContentRef(Contract):
    """Names one immutable text of one tenant by the SHA-256 of its UTF-8 bytes."""

    sha256: Sha256
    """Digest of the exact bytes that the reference stands for."""

    size: int = Field(ge=0)
    """Length in bytes of the UTF-8 text."""
