"""Options that several verbs share, so that they are spelt and explained alike."""

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Url = Annotated[str, typer.Option("--url", help="The gateway's address; also HOLDFAST_URL.", show_default=False)]
User = Annotated[
    str,
    typer.Option(
        "--user",
        help="Who acts, where no HOLDFAST_API_KEY says it; also HOLDFAST_USER.",
        show_default=False,
    ),
]
RequestId = Annotated[str, typer.Argument(metavar="REQUEST_ID", help="A request's id, like req_...")]
