"""Reads HTML from standard input and writes its title and main text as JSON: a program of its own, see `fetch_text`.

It imports nothing of Holdfast, so that it starts fast. The system ends it when it takes more memory or time than a page
is worth.

    python -I fetch_reader.py SECONDS < page.html
"""

import json
import resource
import sys

MAX_MEMORY_BYTES = 1024 * 1024 * 1024


def main() -> None:
    """Read, extract, write."""
    seconds = int(sys.argv[1])
    _limit(resource.RLIMIT_CPU, seconds)
    _limit(resource.RLIMIT_AS, MAX_MEMORY_BYTES)
    _limit(resource.RLIMIT_FSIZE, 0)  # it writes to a pipe; a file it could only be made to write
    _limit(resource.RLIMIT_CORE, 0)
    html = sys.stdin.buffer.read().decode("utf-8", "replace")
    sys.stdout.write(json.dumps(extract(html)))


def extract(html: str) -> dict[str, str]:
    """Title and main text; all of the text when the page has no main one."""
    import trafilatura  # here, so that it is under the limits of `main`

    found = trafilatura.bare_extraction(
        html,
        include_comments=False,
        include_tables=True,
        include_links=False,
        include_formatting=True,
        with_metadata=True,
    )
    if found is not None and not isinstance(found, dict) and found.text and found.text.strip():
        return {"title": found.title or "", "text": found.text}
    about = trafilatura.extract_metadata(html)
    title = "" if about is None else about.title or ""
    # A page may lack `<body>`, without which nothing is found; one within another does no harm.
    return {"title": title, "text": trafilatura.html2txt(f"<html><body>{html}</body></html>")}


def _limit(what: int, value: int) -> None:
    _, hard = resource.getrlimit(what)
    bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(what, (bound, bound))


if __name__ == "__main__":
    main()
