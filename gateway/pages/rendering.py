"""Turns templates into pages. Everything that varies is escaped, and the headers leave a browser no other choice.

Whatever a model, a document or a user wrote is text here and nothing else: no template marks a value as safe.
"""

import hashlib
import mimetypes
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from gateway.pages.payload import headline, node_of, spans, visible
from holdfast.approval import EVERYONE, ROLE

_HERE = Path(__file__).parent

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
"""Content-Security-Policy: nothing inline, nothing from elsewhere, in nobody's frame."""

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": POLICY,
    # Not `no-referrer`: with that a browser sends `Origin: null` with forms, and their origin is what is checked.
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Asset(NamedTuple):
    """A file that pages load."""

    body: bytes
    media_type: str
    etag: str


class Pages:
    """The templates and the files beside them, read once."""

    def __init__(self) -> None:
        self._templates = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= {
            "moment": moment,
            "span": span,
            "money": money,
            "number": number,
            "counted": counted,
            "people": people,
            "People": lambda approvers: people(approvers, first=True),
            "spans": spans,
            "tree": node_of,
            "visible": visible,
            "line": lambda text: visible(headline(text)),
            "iso": lambda at: at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        }
        self._assets = {path.name: _read(path) for path in sorted((_HERE / "static").iterdir()) if path.is_file()}

    def page(self, template: str, values: Mapping[str, object], *, status: int = 200) -> HTMLResponse:
        """A whole page, or a part of one that replaces what a page shows."""
        html = self._templates.get_template(template).render(now=datetime.now(UTC), **values)
        # A lone surrogate in what a model wrote has no UTF-8.
        return HTMLResponse(html.encode("utf-8", "replace"), status_code=status, headers=dict(HEADERS))

    def asset(self, name: str, known: str | None) -> Response | None:
        """A file beside the templates; empty when the browser has it, `None` when there is none of that name."""
        if (found := self._assets.get(name)) is None:
            return None
        headers = {"Cache-Control": "no-cache", "ETag": found.etag, "Content-Security-Policy": "default-src 'none'"}
        if known == found.etag:
            return Response(status_code=304, headers=headers)
        return Response(found.body, media_type=found.media_type, headers=headers)


def moment(at: datetime) -> str:
    """A moment for people, in UTC."""
    return f"{at.astimezone(UTC):%-d %b %Y, %H:%M:%S} UTC"


def span(at: datetime, now: datetime) -> str:
    """A moment as seen from now, in the two largest units that say something: `in 3 h 10 min`, `12 min ago`."""
    seconds = round((at - now).total_seconds())
    if abs(seconds) < 5:
        return "now"
    text = lasting(timedelta(seconds=abs(seconds)))
    return f"in {text}" if seconds > 0 else f"{text} ago"


def lasting(time: timedelta) -> str:
    """A length of time; `static/time.js` says the same."""
    seconds = round(time.total_seconds())
    if seconds < 60:
        return f"{seconds} s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86_400
    if hours < 1:
        return f"{minutes} min"
    if days < 1:
        return f"{hours} h {minutes % 60} min" if minutes % 60 else f"{hours} h"
    return f"{days} d {hours % 24} h" if hours % 24 and days < 7 else f"{days} d"


def money(amount: Decimal | None) -> str:
    """US dollars, with as many digits as small amounts need."""
    if amount is None:
        return "unpriced"
    if amount == 0:
        return "$0"
    if amount >= 1:
        return f"${amount:.2f}"
    # Four decimals, and for less than they can show, its first two digits.
    whole, _, decimals = f"{amount:.{max(4, 1 - amount.adjusted())}f}".partition(".")
    return f"${whole}.{decimals[:4]}{decimals[4:].rstrip('0')}"


def number(value: int) -> str:
    """A count, its thousands apart by narrow spaces."""
    return f"{value:,}".replace(",", "\u202f")


def counted(value: int, noun: str) -> str:
    """A count of things: `1 token`, `2 tokens`."""
    return f"{number(value)} {noun}{'' if value == 1 else 's'}"


def people(approvers: Sequence[str], *, first: bool = False) -> str:
    """Approvers of a rule for people; `first` in a sentence, where a name stays as it is."""
    told = ", ".join("anyone" if name == EVERYONE else name.replace(ROLE, "role ", 1) for name in approvers)
    return told[:1].upper() + told[1:] if first and approvers[0].startswith((EVERYONE, ROLE)) else told


def _read(path: Path) -> Asset:
    body = path.read_bytes()
    media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    if path.suffix == ".js":
        media_type = "text/javascript"
    return Asset(body, media_type, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
