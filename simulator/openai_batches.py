"""OpenAI's batch API: files of requests in, files of results out."""

import json
import time
import uuid
from collections import OrderedDict
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from simulator.batch_lines import MOST_LINES, start_batch, written_line
from simulator.batches import MOST_BATCHES, Batch, LineResult, Stage
from simulator.endpoint import api_key_of
from simulator.errors import ApiError
from simulator.model_request import invalid
from simulator.openai_wire import OpenAI
from simulator.service import Service
from simulator.wire import read_object

_ENDPOINT = "/v1/chat/completions"
_WINDOW_SECONDS = 24 * 3600
_WIRE = OpenAI()


@dataclass(frozen=True)
class _File:
    id: str
    filename: str
    purpose: str
    content: bytes
    created: int = field(default_factory=lambda: int(time.time()))

    def shown(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "file",
            "bytes": len(self.content),
            "created_at": self.created,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
        }


@dataclass(eq=False)
class _Job:
    """A batch as OpenAI speaks of it."""

    id: str
    input_file_id: str
    metadata: Any
    batch: Batch
    errors: list[dict[str, Any]]
    """Why its file was not accepted."""
    output_file_id: str | None = None
    error_file_id: str | None = None


class _BatchApi:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._files: OrderedDict[str, _File] = OrderedDict()
        self._jobs: OrderedDict[str, _Job] = OrderedDict()
        service.when_reset(self._files.clear)
        service.when_reset(self._jobs.clear)

    async def upload(self, request: Request) -> Response:
        fields = _multipart(request.headers.get("content-type", ""), await request.body())
        if fields.get("purpose", ("", b""))[1] != b"batch":
            raise invalid("`purpose` has to be batch.", "purpose")
        if "file" not in fields:
            raise invalid("`file` is missing.", "file")
        filename, content = fields["file"]
        return JSONResponse(self._store(filename or "batch.jsonl", "batch", content).shown())

    async def show_file(self, request: Request) -> Response:
        return JSONResponse(self._file(request).shown())

    async def content(self, request: Request) -> Response:
        return Response(self._file(request).content, media_type="application/octet-stream")

    async def create(self, request: Request) -> Response:
        given = read_object(await request.body())
        if given.get("endpoint") != _ENDPOINT:
            raise invalid(f"`endpoint` has to be {_ENDPOINT}.", "endpoint")
        if given.get("completion_window") != "24h":
            raise invalid("`completion_window` has to be 24h.", "completion_window")
        file = self._files.get(str(given.get("input_file_id")))
        if file is None:
            raise invalid("`input_file_id` is not the id of a file.", "input_file_id")
        lines, errors = _read_lines(file.content)
        batch = start_batch(self._service, _WIRE, [] if errors else lines, api_key_of(request.headers.get))
        job = _Job(f"batch_{batch.id}", file.id, given.get("metadata"), batch, errors)
        self._jobs[job.id] = job
        if len(self._jobs) > MOST_BATCHES:
            self._jobs.popitem(last=False)
        return JSONResponse(self._shown(job))

    async def show(self, request: Request) -> Response:
        return JSONResponse(self._shown(self._job(request)))

    async def list(self, _: Request) -> Response:
        data = [self._shown(job) for job in reversed(self._jobs.values())]
        return JSONResponse({"object": "list", "data": data, "has_more": False})

    async def cancel(self, request: Request) -> Response:
        job = self._job(request)
        job.batch.cancel()
        return JSONResponse(self._shown(job))

    def _store(self, filename: str, purpose: str, content: bytes) -> _File:
        file = _File(f"file-{uuid.uuid4().hex}", filename, purpose, content)
        self._files[file.id] = file
        if len(self._files) > MOST_BATCHES:
            self._files.popitem(last=False)
        return file

    def _file(self, request: Request) -> _File:
        file = self._files.get(request.path_params["file"])
        if file is None:
            raise ApiError(404, "No such file.", type="invalid_request_error", param="file_id")
        return file

    def _job(self, request: Request) -> _Job:
        job = self._jobs.get(request.path_params["batch"])
        if job is None:
            raise ApiError(404, "No such batch.", type="invalid_request_error", param="batch_id")
        return job

    def _shown(self, job: _Job) -> dict[str, Any]:
        batch, status = job.batch, _status(job)
        if batch.stage is Stage.ENDED and not job.errors:
            self._write_results(job)
        counts = batch.counts()
        failed = counts["errored"] + counts["expired"]
        times = {stage: int(seconds) for stage, seconds in batch.times.items()}
        created, ended = times[Stage.VALIDATING], times.get(Stage.ENDED)
        return {
            "id": job.id,
            "object": "batch",
            "endpoint": _ENDPOINT,
            "errors": {"object": "list", "data": job.errors} if job.errors else None,
            "input_file_id": job.input_file_id,
            "completion_window": "24h",
            "status": status,
            "output_file_id": job.output_file_id,
            "error_file_id": job.error_file_id,
            "created_at": created,
            "in_progress_at": times.get(Stage.IN_PROGRESS),
            "expires_at": created + _WINDOW_SECONDS,
            "finalizing_at": times.get(Stage.FINALIZING),
            "completed_at": ended if status == "completed" else None,
            "failed_at": created if status == "failed" else None,
            "expired_at": ended if status == "expired" else None,
            "cancelling_at": None if batch.cancelled is None else int(batch.cancelled),
            "cancelled_at": ended if status == "cancelled" else None,
            "request_counts": {"total": batch.total, "completed": counts["succeeded"], "failed": failed},
            "metadata": job.metadata,
        }

    def _write_results(self, job: _Job) -> None:
        """Write the output and the error file, once; a file without lines does not exist."""
        output = b"".join(map(_written, (r for r in job.batch.results if r.outcome == "succeeded")))
        errors = b"".join(map(_written, (r for r in job.batch.results if r.outcome in ("errored", "expired"))))
        if output and job.output_file_id is None:
            job.output_file_id = self._store(f"{job.id}_output.jsonl", "batch_output", output).id
        if errors and job.error_file_id is None:
            job.error_file_id = self._store(f"{job.id}_error.jsonl", "batch_output", errors).id


def openai_batch_routes(service: Service) -> list[Route]:
    """The routes of files and batches."""
    api = _BatchApi(service)
    return [
        Route("/v1/files", api.upload, methods=["POST"]),
        Route("/v1/files/{file}", api.show_file),
        Route("/v1/files/{file}/content", api.content),
        Route("/v1/batches", api.create, methods=["POST"]),
        Route("/v1/batches", api.list),
        Route("/v1/batches/{batch}", api.show),
        Route("/v1/batches/{batch}/cancel", api.cancel, methods=["POST"]),
    ]


def _status(job: _Job) -> str:
    batch = job.batch
    if job.errors:
        return "failed"
    if batch.cancelled is not None:
        return "cancelled" if batch.stage is Stage.ENDED else "cancelling"
    if batch.stage is Stage.ENDED:
        return "expired" if batch.counts()["expired"] else "completed"
    return batch.stage


def _written(result: LineResult) -> bytes:
    line: dict[str, Any] = {"id": f"batch_req_{uuid.uuid4().hex}", "custom_id": result.custom_id}
    request_id = uuid.uuid4().hex
    if result.outcome == "expired":
        message = "This request could not be executed before the completion window expired."
        line |= {"response": None, "error": {"code": "batch_expired", "message": message}}
    elif result.error is not None:
        body = _WIRE.error(result.error, None)
        line |= {"response": {"status_code": result.error.status, "request_id": request_id, "body": body}}
        line |= {"error": None}
    else:
        line |= {"response": {"status_code": 200, "request_id": request_id, "body": result.body}, "error": None}
    return written_line(line, malformed=result.malformed)


def _read_lines(content: bytes) -> tuple[list[tuple[str, Any]], list[dict[str, Any]]]:
    """The requests of a file, and what is wrong with it."""
    lines: dict[str, Any] = {}
    errors: list[dict[str, Any]] = []
    for number, text in enumerate(content.splitlines(), start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        match line:
            case {"custom_id": str(custom_id), "method": "POST", "url": "/v1/chat/completions", "body": dict(body)}:
                if custom_id in lines:
                    errors.append(_line_error("duplicate_custom_id", number, "custom_id"))
                lines[custom_id] = body
            case _:
                errors.append(_line_error("invalid_json_line" if line is None else "invalid_request", number, None))
    if not lines and not errors:
        errors.append(_line_error("empty_file", 1, None))
    if len(lines) > MOST_LINES:
        errors.append(_line_error("too_many_tasks", MOST_LINES + 1, None))
    return list(lines.items()), errors


def _line_error(code: str, line: int, param: str | None) -> dict[str, Any]:
    message = f"Line {line}: {code.replace('_', ' ')}. A line has custom_id, method POST, url {_ENDPOINT} and body."
    return {"code": code, "line": line, "message": message, "param": param}


def _multipart(content_type: str, body: bytes) -> dict[str, tuple[str | None, bytes]]:
    """The fields of a multipart form: file name, if any, and content of each."""
    header = Message()
    header["content-type"] = content_type
    boundary = header.get_boundary()
    if boundary is None:
        raise invalid("The request body is not multipart form data.", None)
    fields: dict[str, tuple[str | None, bytes]] = {}
    for part in (b"\r\n" + body).split(f"\r\n--{boundary}".encode())[1:-1]:
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        headers = message_from_bytes(head + b"\r\n\r\n")
        name = headers.get_param("name", header="content-disposition")
        if isinstance(name, str):
            fields[name] = headers.get_filename(), content
    return fields
