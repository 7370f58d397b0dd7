"""`fetch_url` against real servers on the loopback interface: where it goes, what it accepts, how much it takes."""

import asyncio
import contextlib
import gzip
import os
import tracemalloc
import zlib
from datetime import timedelta

import pytest

from holdfast.errors import ConfigurationError, ToolProblem
from holdfast.tools.context import ToolContext
from holdfast.tools.fetch import FetchSettings, FetchUrl, build
from holdfast.tools.fetch_text import decode, page_text
from tests.tools.web import Answer, Names, Web, page, redirect, web

ARTICLE = """<html><head><title>Opening hours</title><script>alert("never shown")</script></head><body>
<nav><a href="/">Home</a></nav><article><h1>When we are open</h1>
<p>The shop opens at nine on every weekday and closes at five, except on Fridays, when it closes at three.</p>
<table><tr><th>Day</th><th>Until</th></tr><tr><td>Friday</td><td>three</td></tr></table></article></body></html>"""
CALLER = ToolContext(
    idempotency_key="0" * 32, tenant="acme", user="ann", session=None, agent="reader", request_id="req_1", key="0.0"
)


def reader(*hosts: str, resolve: Names | None = None, **options: object) -> FetchUrl:
    given = {"hosts": hosts, "private_hosts": ("127.0.0.1", "shop.test"), "http": True, **options}
    names = resolve or Names(shop_test=["127.0.0.1"])
    return FetchUrl("fetch_url", FetchSettings.model_validate(given), resolve=names)


async def read(server: Web, path: str = "/", **options: int | str) -> str:
    return await reader("127.0.0.1:*", resolve=None, **options).call({"url": server.root + path}, CALLER)


async def problem(server: Web, path: str = "/", **options: int | str) -> str:
    with pytest.raises(ToolProblem) as caught:
        await read(server, path, **options)
    assert server.root not in str(caught.value)
    return str(caught.value)


async def test_a_page_becomes_its_text_with_title_and_source() -> None:
    async with web({"/hours?day=friday": page(ARTICLE)}) as server:
        text = await read(server, "/hours?day=friday#table")
    assert text.startswith(f"Title: When we are open\nSource: {server.root}/hours?day=friday\n\n")
    assert "closes at five, except on Fridays" in text
    assert "| Friday | three |" in text
    assert "never shown" not in text
    assert "<" not in text


@pytest.mark.parametrize(
    ("content_type", "body", "expected"),
    [
        ("text/plain", "a\r\nb\x01\x07\ue000\U000e0041", "a\nb\ue000"),
        ("application/json", '{"a": 1}', '{"a": 1}'),
        ("TEXT/CSV; header=present", "a,b\n1,2", "a,b\n1,2"),
        ("", "just text", "just text"),
        ("", "<!DOCTYPE html><title>t</title><p>short", "short"),
        ("text/html", "<p>short", "short"),
        ("text/xml", "<feed><title>News</title></feed>", "<feed><title>News</title></feed>"),
    ],
)
async def test_texts_of_every_type_are_read(content_type: str, body: str, expected: str) -> None:
    async with web({"/": page(body, content_type=content_type)}) as server:
        assert (await read(server)).endswith(f"Source: {server.root}/\n\n{expected}")


@pytest.mark.parametrize(
    "content_type",
    [
        "application/pdf",
        "image/png",
        "application/octet-stream",
        "text/html, image/png",
        "nonsense",
        "text",
        ";charset=x",
    ],
)
async def test_a_page_of_another_type_is_refused_unread(content_type: str) -> None:
    async def only_a_head(writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n\r\n".encode())
        await writer.drain()
        await asyncio.sleep(3600)  # the body never comes, and nobody waits for it

    async with web({"/": only_a_head}) as server:
        assert "is not of a type that this tool reads" in await problem(server)


async def test_bytes_that_only_claim_to_be_text_are_refused() -> None:
    async with web({"/": page(b"\x7fELF" + bytes(4_000), content_type="text/plain")}) as server:
        assert "not text" in await problem(server)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("404 Not Found", "status 404"),
        ("500 Oops", "status 500"),
        ("401 Who", "status 401"),
        ("204 Empty", "status 204"),
    ],
)
async def test_an_error_page_is_told_as_its_status(status: str, expected: str) -> None:
    async with web({"/": page("secret of the server", status=status)}) as server:
        assert expected in await problem(server)


async def test_a_page_without_text_says_so() -> None:
    async with web({"/": page("<html><script>render()</script></html>"), "/nothing": page("")}) as server:
        for path in ("/", "/nothing"):
            assert "holds no text" in await problem(server, path)


async def test_redirects_are_followed_and_the_last_url_is_named() -> None:
    answers: dict[str, Answer] = {f"/{hop}": redirect(f"/{hop + 1}") for hop in range(5)}
    async with web({**answers, "/5": page("arrived", content_type="text/plain")}) as server:
        assert (await read(server, "/0")).startswith(f"Source: {server.root}/5\n")
    async with web({"/": redirect("/")}) as server:
        assert "redirects more than 5 times" in await problem(server)
    assert len(server.asked) == 6


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://[::ffff:169.254.169.254]/",
        "http://[64:ff9b::a9fe:a9fe]/",
        "http://2852039166/",
        "http://0xa9fea9fe/",
        "http://0251.0376.0251.0376/",
        "http://10.0.0.1/",
        "http://localhost/",
        "//10.0.0.1/",
        "https://evil.test/",
        "http://127.0.0.1@evil.test/",
        "http://user:password@127.0.0.1/",
        "file:///etc/passwd",
        "ftp://127.0.0.1/",
        "javascript:alert(1)",
        "http://127.0.0.1:22/",
        "http:\\\\evil.test/",
        "//evil.test\\@127.0.0.1/",
        "http://[::1",
        "http://%31%30.0.0.1/",
    ],
)
async def test_a_redirect_is_checked_like_the_first_url(location: str) -> None:
    async with web({"/": redirect(location)}) as server:
        hosts = (f"127.0.0.1:{server.port}",)
        with pytest.raises(ToolProblem, match=r"redirects to|not HTTP"):
            await reader(*hosts).call({"url": f"{server.root}/"}, CALLER)
    assert len(server.asked) == 1  # and nothing else was asked


async def test_a_redirect_does_not_leave_https() -> None:
    async with web({"/": page("plain")}) as server:
        only_https = reader("127.0.0.1:*", http=False)
        with pytest.raises(ToolProblem, match="must begin with https://"):
            await only_https.call({"url": f"{server.root}/"}, CALLER)
    assert server.asked == []


async def test_a_name_that_moves_to_a_metadata_address_is_caught_at_the_redirect() -> None:
    async with web({"/": redirect("/again"), "/again": page("never read")}) as server:
        moving = reader("shop.test:*", resolve=Names(["127.0.0.1"], ["169.254.169.254"]))
        with pytest.raises(ToolProblem, match="link-local"):
            await moving.call({"url": f"http://shop.test:{server.port}/"}, CALLER)
    assert len(server.asked) == 1


async def test_nothing_is_asked_of_a_host_that_is_not_listed() -> None:
    async with web({"/": page("private")}) as server:
        outside = reader("docs.example.org", "*.example.com")
        with pytest.raises(ToolProblem, match=r"on the list, which has docs\.example\.org, \*\.example\.com"):
            await outside.call({"url": f"{server.root}/"}, CALLER)
        unlisted = reader("127.0.0.1:*", private_hosts=())
        with pytest.raises(ToolProblem, match="loopback"):
            await unlisted.call({"url": f"{server.root}/"}, CALLER)
    assert server.asked == []


async def test_a_body_larger_than_allowed_is_given_up_whatever_it_says_of_itself() -> None:
    written = 0

    async def endless(writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"1000\r\n" + b"x" * 4_096 + b"\r\n")
            written += 4_096
            await writer.drain()

    announced = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 9999999999999999999\r\n\r\n"
    unannounced = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n" + b"x" * 20_000
    async with web({"/endless": endless, "/announced": announced, "/unannounced": unannounced}) as server:
        for path in server.answers:
            assert "larger than 10000 bytes" in await problem(server, path, max_bytes=10_000)
    assert written < 50_000_000


@pytest.mark.parametrize("coding", ["gzip", "deflate", "raw deflate"])
async def test_a_compressed_page_is_unpacked(coding: str) -> None:
    text = "".join(f"{number} lines of text\n" for number in range(20_000))
    whole = text.encode()
    body = gzip.compress(whole) if coding == "gzip" else zlib.compress(whole)
    body = body[2:-4] if coding == "raw deflate" else body
    header = f"Content-Encoding: {coding.split()[-1]}\r\n"
    async with web({"/": page(body, content_type="text/plain", headers=header)}) as server:
        assert (await read(server, page_characters=200_000)).count("lines of text") > 5_000
        cut = page(body[:-100], content_type="text/plain", headers=header)
        server.answers["/cut"] = cut
        assert "incomplete" in await problem(server, "/cut")


@pytest.mark.parametrize("beyond", [0, 1, 100, 257, 258, 300])
async def test_what_unpacks_to_just_more_than_a_step_is_complete(beyond: int) -> None:
    raw = zlib.compress(b"a" * (65_536 + beyond))[2:-4]  # nothing follows the data that would make the rest come out
    async with web({"/": page(raw, content_type="text/plain", headers="Content-Encoding: deflate\r\n")}) as server:
        assert (await read(server, page_characters=200_000)).endswith("\n" + "a" * (65_536 + beyond))


async def test_a_bomb_is_noticed_while_it_unpacks() -> None:
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    bomb = b"".join(packer.compress(bytes(1_000_000)) for _ in range(200)) + packer.flush()
    many = page(bomb, content_type="text/plain", headers="Content-Encoding: gzip\r\n")
    twice = page(gzip.compress(bomb), content_type="text/plain", headers="Content-Encoding: gzip, gzip\r\n")
    odd = page(b"?", content_type="text/plain", headers="Content-Encoding: br\r\n")
    broken = page(b"not gzip", content_type="text/plain", headers="Content-Encoding: gzip\r\n")
    async with web({"/many": many, "/twice": twice, "/odd": odd, "/broken": broken}) as server:
        tracemalloc.start()
        assert "larger than 1000000 bytes" in await problem(server, "/many", max_bytes=1_000_000)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak_bytes < 20_000_000
        assert "more than once" in await problem(server, "/twice")
        assert "does not unpack" in await problem(server, "/odd")
        assert "damaged" in await problem(server, "/broken")


async def test_a_server_that_drips_is_given_up() -> None:
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
        while True:
            writer.write(b".")
            await writer.drain()
            await asyncio.sleep(0.01)

    async def silent(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(3600)

    async with web({"/drip": drip, "/silent": silent}) as server:
        assert "in time" in await problem(server, "/drip", within="300ms")
        late = await problem(server, "/silent", within="300ms")
        assert "in time" in late or "fell silent" in late


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"not HTTP at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 300_000 + b"\r\n\r\n",
    ],
)
async def test_an_answer_that_is_no_answer_is_a_problem_and_no_crash(answer: bytes) -> None:
    async with web({"/": answer}) as server:
        assert "broke off or sent something that is not HTTP" in await problem(server)


async def test_a_server_that_is_not_there_is_told() -> None:
    async with web({}) as server:
        pass
    assert "does not accept a connection" in await problem(server)


async def test_a_long_page_is_read_in_parts() -> None:
    text = "".join(f"{number:04d} " for number in range(400))
    async with web({"/": page(text, content_type="text/plain")}) as server:
        tool = reader("127.0.0.1:*", page_characters=500)
        url = f"{server.root}/"
        first = await tool.call({"url": url}, CALLER)
        assert "Characters 0 to 500 of 1999; to read on, call again with start=500.\n\n0000 0001" in first
        assert (await tool.call({"url": url, "start": 1_500.0}, CALLER)).endswith("0398 0399")
        with pytest.raises(ToolProblem, match="ends at character 1999"):
            await tool.call({"url": url, "start": 2_000}, CALLER)


@pytest.mark.parametrize(
    ("body", "charset", "expected"),
    [
        ("Grüße €".encode(), "utf-8", "Grüße €"),
        ("Grüße".encode("latin-1"), "iso-8859-1", "Grüße"),
        ("Grüße €".encode("cp1252"), "iso-8859-1", "Grüße €"),
        ("Grüße".encode("latin-1"), "utf-8", "Grüße"),
        ("Grüße".encode("latin-1"), "", "Grüße"),
        ("Привет".encode("koi8-r"), "KOI8-R", "Привет"),
        ("こんにちは".encode("shift_jis"), "Shift_JIS", "こんにちは"),
        ("Grüße".encode("utf-16"), "", "Grüße"),
        ("Grüße".encode("utf-8-sig"), "iso-8859-1", "Grüße"),
        ('<meta charset="koi8-r">Привет'.encode("koi8-r"), "", '<meta charset="koi8-r">Привет'),
        (b"abc", "no-such-thing", "abc"),
        (b"abc", "zip", "abc"),
        (b"abc", "rot13", "abc"),
        (b"abc", "\x00", "abc"),
        (b"\\u0041", "unicode_escape", "\\u0041"),
        (b"abc-" * 10, "punycode", "abc-" * 10),
        (("ü" * 200).encode() + b"\xff", "utf-8", "ü" * 200 + "\ufffd"),
    ],
)
def test_an_encoding_is_believed_as_far_as_it_fits(body: bytes, charset: str, expected: str) -> None:
    assert decode(body, charset) == expected


async def test_a_page_made_to_be_slow_or_large_to_read_is_given_up() -> None:
    slow = "<html><body><p " + " ".join(f"a{number}=1" for number in range(150_000)) + ">x"
    with pytest.raises(ToolProblem, match="takes too long"):
        await page_text(slow.encode(), "text/html", within=timedelta(seconds=1))


@pytest.mark.parametrize("opened", ["<div>", "<table><tr><td>", "<b>", "<ul><li>", "<svg>", "<font color=red>"])
async def test_deep_nesting_is_read_or_refused(opened: str) -> None:
    nested = ("<html><body>" + opened * 50_000 + "deep").encode()
    with contextlib.suppress(ToolProblem):
        assert (await page_text(nested, "text/html", within=timedelta(seconds=60))).title == ""


async def test_a_page_is_read_without_the_secrets_of_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    begin = asyncio.create_subprocess_exec

    async def watched(*args: str, **kwargs: object) -> asyncio.subprocess.Process:
        started.append(kwargs["env"])
        return await begin(*args, **kwargs)  # type: ignore[arg-type]  # the very arguments that were given

    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setattr(asyncio, "create_subprocess_exec", watched)
    assert (await page_text(ARTICLE.encode(), "text/html", within=timedelta(seconds=60))).title == "When we are open"
    assert started == [{}]
    assert os.environ["OPENAI_API_KEY"] == "secret"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"tools\.toml: `hosts`: Field required"),
        ({"hosts": []}, "`hosts`"),
        ({"hosts": ["https://x.test"]}, r"tools\.toml: hosts: 'https://x\.test' is no host"),
        (
            {"hosts": ["x.test"], "private_hosts": ["10.0.0.0/8"]},
            r"tools\.toml: private_hosts: '10\.0\.0\.0/8' is no host",
        ),
        ({"hosts": ["x.test"], "max_byte": 1}, "Did you mean 'max_bytes'"),
    ],
)
def test_wrong_options_are_found_at_start(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build("fetch_url", options, "tools.toml")


def test_the_model_is_told_where_it_can_go() -> None:
    tool = build("read_docs", {"hosts": ["Docs.example.org"], "about": "The handbook."}, "tools.toml")
    assert tool.description == "Read a page from the web as text. The handbook. It can reach: docs.example.org."
    assert (tool.name, tool.side_effects, tool.idempotent, tool.origin) == ("read_docs", False, True, "web")
