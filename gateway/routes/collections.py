"""`/v1/collections`: documents to index; `/v1/ingestions`: what became of them."""

import hashlib
import re
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Request
from pydantic import Field
from starlette.responses import JSONResponse, Response

from gateway import representations
from gateway.body import read_object
from gateway.context import CallerOf, GatewayOf, Wait
from gateway.openapi import body_of
from gateway.problems import Problem
from gateway.submission import digest, keyed_id, new_id, read_key
from gateway.validation import Body, Line, validate
from holdfast.configuration import reference
from holdfast.contracts import IngestRun, SourceText

router = APIRouter(tags=["collections"])

DEFAULT_WAIT = timedelta(minutes=10)
"""An ingestion is waited for as long as the settings allow, unless the caller says otherwise."""
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")


class DocumentBody(Body):
    """A document."""

    source: Annotated[Line, Field(min_length=1, max_length=1_024)]
    """How the document is named in citations; a path relative to the ingested root."""
    text: str


class DocumentsBody(Body):
    """The body of an ingestion."""

    documents: Annotated[list[DocumentBody], Field(min_length=1, max_length=500)]


@router.post("/v1/collections/{name}/documents", openapi_extra=body_of(DocumentsBody))
async def ingest(
    name: Annotated[str, Path(description="The collection; it is created by its first document.")],
    http: Request,
    gateway: GatewayOf,
    caller: CallerOf,
    wait: Wait = None,
) -> Response:
    """Index documents, replacing earlier texts of the same sources. 200 with the result, 202 when it takes longer."""
    longest = gateway.longest(wait, DEFAULT_WAIT)
    key = read_key(http.headers)
    if not _NAME.fullmatch(name):
        raise Problem(
            422,
            "invalid-input",
            "Invalid input",
            "The collection's name is not acceptable.",
            remedy="Use lower-case letters, digits, `-` and `_`, beginning with a letter, at most 63 characters.",
            field="name",
        )
    body = await read_object(http, gateway.settings.max_body_bytes)
    documents = validate(DocumentsBody, body).documents
    _refuse_doubles(documents)
    texts = [document.text for document in documents]
    if key is None:
        ingestion_id = new_id("ing_")
        await gateway.ledger.contents.put_many(caller.tenant, texts)
    else:
        # Keys of ingestions and of requests are apart: the same key may be used once for each.
        claim = await gateway.ledger.submissions.claim(
            caller.tenant,
            f"ingest:{hashlib.sha256(key.encode()).hexdigest()}",
            body_sha256=digest([name, body]),
            request_id=keyed_id("ing_", caller.tenant, key),
            texts=texts,
        )
        ingestion_id = claim.request_id
    run = IngestRun(
        tenant=caller.tenant,
        collection=name,
        documents=tuple(SourceText(source=document.source, text=reference(document.text)) for document in documents),
    )
    found = await gateway.engine.ingest(run, ingestion_id, longest)
    gateway.answers.forget(caller.tenant)
    return JSONResponse(
        representations.ingestion(found, gateway.links),
        status_code=200 if found.result or found.failure else 202,
        headers={"Location": f"/v1/ingestions/{ingestion_id}"},
    )


@router.get("/v1/ingestions/{ingestion_id}")
async def read(ingestion_id: str, gateway: GatewayOf, caller: CallerOf) -> Response:
    """An ingestion, with its result once it has one."""
    found = await gateway.engine.ingestion(ingestion_id, caller.tenant)
    if found is None:
        raise Problem(
            404,
            "no-such-ingestion",
            "No such ingestion",
            "There is no ingestion with this id.",
            remedy="Check the id; it was in the answer to the upload.",
            field="id",
        )
    return JSONResponse(representations.ingestion(found, gateway.links))


def _refuse_doubles(documents: list[DocumentBody]) -> None:
    seen: set[str] = set()
    for position, document in enumerate(documents):
        if document.source in seen:
            raise Problem(
                422,
                "invalid-input",
                "Invalid input",
                "Two documents have the same source, so one would replace the other.",
                remedy="Give every document its own `source`.",
                field=f"documents.{position}.source",
            )
        seen.add(document.source)
