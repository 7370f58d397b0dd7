"""Where a request may go: lists of hosts, every way of writing an address, names that move, and pinned connections."""

import datetime as dt
import ipaddress
import logging
import ssl
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from holdfast.addresses import CheckedTarget, check_hosts, checked, forbidden_kind, pinned_client, system_resolver
from holdfast.errors import ConfigurationError, TargetRefused, Unavailable
from tests.tools.web import Names, page, redirect, web

PUBLIC = "93.184.215.14"
SOON = timedelta(seconds=60)


async def target(url: str, *hosts: str, resolve: Names | None = None, private: tuple[str, ...] = ()) -> CheckedTarget:
    names = resolve or Names(shop_example=[PUBLIC], api_shop_example=[PUBLIC])
    return await checked(url, hosts=hosts, private_hosts=private, schemes=("https", "http"), resolve=names)


async def test_a_host_on_the_list_is_resolved_once_and_its_url_is_made_canonical() -> None:
    names = Names(shop_example=[PUBLIC, "2606:2800:21f:cb07::1", PUBLIC])
    found = await target("HTTPS://Shop.Example.:443/a/../b?q=1#part", "shop.example", resolve=names)
    assert found == CheckedTarget(
        url="https://shop.example/b?q=1",
        scheme="https",
        host="shop.example",
        port=443,
        addresses=(PUBLIC, "2606:2800:21f:cb07::1"),
    )
    assert names.asked == ["shop.example"]


async def test_a_name_in_another_script_is_the_name_that_is_asked_for() -> None:
    found = await target("https://bücher。example/ä", "xn--bcher-kva.example", resolve=Names([PUBLIC]))
    assert found.url == "https://xn--bcher-kva.example/%C3%A4"


@pytest.mark.parametrize(
    ("pattern", "url", "admitted"),
    [
        ("shop.example", "https://shop.example/", True),
        ("SHOP.example", "https://shop.example/", True),
        ("shop.example", "https://api.shop.example/", False),
        ("shop.example", "https://shop.example.evil.test/", False),
        ("shop.example", "https://evilshop.example/", False),
        ("*.shop.example", "https://api.shop.example/", True),
        ("*.shop.example", "https://shop.example/", False),
        ("*.shop.example", "https://evilshop.example/", False),
        ("*", "https://shop.example/", True),
        ("shop.example", "https://shop.example:8443/", False),
        ("shop.example:8443", "https://shop.example:8443/", True),
        ("shop.example:8443", "https://shop.example/", False),
        ("shop.example:*", "https://shop.example:22/", True),
        ("shop.example", "http://shop.example/", True),
        ("shop.example", "http://shop.example:443/", False),
        ("93.184.215.14", "https://93.184.215.14/", True),
        ("[2606:2800:21f:cb07::1]", "https://[2606:2800:21F:CB07:0::1]/", True),
        ("*.215.14", "https://93.184.215.14/", False),
    ],
)
async def test_a_pattern_admits_what_it_says_and_nothing_that_looks_like_it(
    pattern: str, url: str, admitted: bool
) -> None:
    if admitted:
        assert (await target(url, pattern)).addresses
    else:
        names = Names()
        with pytest.raises(TargetRefused, match="not on the list"):
            await target(url, pattern, resolve=names)
        assert names.asked == []  # a refused name is not even looked up: a question to a name server tells something


@pytest.mark.parametrize(
    "url",
    [
        "ftp://shop.example/",
        "file:///etc/passwd",
        "gopher://shop.example/",
        "//shop.example/",
        "shop.example",
        "https:shop.example",
        "https:/shop.example",
        "https:///shop.example",
        "https://",
        "https://shop.example@evil.test/",
        "https://user:password@shop.example/",
        "https://@shop.example/",
        "https://evil.test\\@shop.example/",
        "https://shop.example\\.evil.test/",
        "https://shop.example%2eevil.test/",
        "https://%73hop.example/",
        "https://shop.example\t/",
        " https://shop.example/",
        "https://shop.example/\r\nX-Injected: yes",
        "https://shop.example/a b",
        "https://shop.example:/",
        "https://shop.example:0/",
        "https://shop.example:65536/",
        "https://shop.example:+443/",
        "https://shop.example:４４３/",
        "https://shop.example:443:80/",
        "https://[::1/",
        "https://[::1]evil/",
        "https://[fe80::1%25eth0]/",
        "https://[fe80::1%eth0]/",
        "https://[v1.a]/",
        "https://shop..example/",
        "https://-shop.example/",
        "https://" + "a" * 64 + ".example/",
        "https://shop.example/" + "a" * 5_000,
        "https://１２７.０.０.１/",
        "https://0x7f000001/",
        "https://0x7f.0.0.1/",
        "https://0177.0.0.1/",
        "https://127.1/",
        "https://2130706433/",
        "https://017700000001/",
        "https://127.0.0.1.0/",
        "https://127.0.0.01/",
        "https://0/",
        "https://1.1.1.0x1/",
        "https://1.1.1.0x/",
        "https://shop.example\x00.evil.test/",
        "https://shop.example\u200b/",
    ],
)
async def test_a_url_that_readers_could_read_differently_is_refused_before_anything_is_resolved(url: str) -> None:
    names = Names()
    with pytest.raises(TargetRefused) as refused:
        await target(url, "*:*", resolve=names, private=("*:*",))
    assert names.asked == []
    assert "shop" not in str(refused.value)
    assert refused.value.field == "url"


INSIDE = [
    ("127.0.0.1", "loopback"),
    ("127.255.255.254", "loopback"),
    ("::1", "loopback"),
    ("10.1.2.3", "private"),
    ("172.16.0.1", "private"),
    ("172.31.255.255", "private"),
    ("192.168.1.1", "private"),
    ("100.64.0.1", "shared"),
    ("fc00::1", "private"),
    ("fd12:3456::1", "private"),
    ("192.0.2.1", "documentation"),
    ("198.18.0.1", "benchmarking"),
    ("2001:db8::1", "documentation"),
    ("192.0.0.8", "reserved"),
]
NOWHERE = [
    ("0.0.0.0", "unspecified"),
    ("0.1.2.3", "unspecified"),
    ("::", "unspecified"),
    ("169.254.169.254", "link-local"),
    ("fe80::1", "link-local"),
    ("fec0::1", "site-local"),
    ("168.63.129.16", "metadata"),
    ("100.100.100.200", "metadata"),
    ("192.0.0.192", "metadata"),
    ("fd00:ec2::254", "metadata"),
    ("224.0.0.1", "multicast"),
    ("239.255.255.250", "multicast"),
    ("ff02::1", "multicast"),
    ("240.0.0.1", "reserved"),
    ("255.255.255.255", "reserved"),
    ("::ffff:127.0.0.1", "IPv4-mapped"),
    ("::ffff:7f00:1", "IPv4-mapped"),
    ("::ffff:8.8.8.8", "IPv4-mapped"),
    ("::127.0.0.1", "IPv4-compatible"),
    ("::ffff:0:127.0.0.1", "IPv4-translated"),
    ("64:ff9b::7f00:1", "NAT64"),
    ("64:ff9b::a9fe:a9fe", "NAT64"),
    ("64:ff9b:1::a9fe:a9fe", "NAT64"),
    ("2002:7f00:1::", "6to4"),
    ("2002:a9fe:a9fe::1", "6to4"),
    ("2001:0:7f00:1::", "Teredo"),
    ("4000::1", "reserved"),
    ("100::1", "reserved"),
    ("fe80::1%eth0", "unreadable"),
    ("localhost", "unreadable"),
]


@pytest.mark.parametrize(("address", "kind"), [*INSIDE, *NOWHERE])
async def test_no_name_leads_to_an_address_inside(address: str, kind: str) -> None:
    with pytest.raises(TargetRefused, match=kind) as refused:
        await target("https://shop.example/", "*", resolve=Names([PUBLIC, address]))
    assert address not in str(refused.value)  # what the network looks like is not told


@pytest.mark.parametrize(("address", "kind"), [*INSIDE, *[row for row in NOWHERE if row[1] != "unreadable"]])
async def test_no_address_inside_is_reached_by_writing_it_down(address: str, kind: str) -> None:
    url = f"https://[{address}]/" if ":" in address else f"https://{address}/"
    with pytest.raises(TargetRefused, match=kind):
        await target(url, "*")


@pytest.mark.parametrize(("address", "kind"), INSIDE)
async def test_a_private_host_may_be_inside(address: str, kind: str) -> None:
    assert forbidden_kind(address) is not None
    found = await target("https://wiki.corp/", "wiki.corp", resolve=Names([address]), private=("wiki.corp",))
    assert found.addresses == (address,)


@pytest.mark.parametrize(("address", "kind"), NOWHERE)
async def test_a_private_host_is_never_a_metadata_service_or_a_tunnel(address: str, kind: str) -> None:
    with pytest.raises(TargetRefused, match=kind):
        await target("https://wiki.corp/", "wiki.corp", resolve=Names([address]), private=("wiki.corp", "*"))


async def test_a_private_host_is_none_for_the_others() -> None:
    with pytest.raises(TargetRefused, match="private"):
        await target("https://shop.example/", "*", resolve=Names(["10.0.0.1"]), private=("wiki.corp",))


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6))
def test_an_admitted_address_is_public_by_the_registry_of_python_too(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if forbidden_kind(str(address)) is None:
        assert address.is_global or str(address).startswith("2001:")
        assert not any((address.is_private, address.is_loopback, address.is_link_local, address.is_multicast))


@given(st.text(max_size=60), st.sampled_from(["https://", "http://", "https://shop.example", ""]))
async def test_any_text_is_a_target_or_refused(text: str, prefix: str) -> None:
    names = Names()
    try:
        found = await target(prefix + text, "shop.example", resolve=names)
    except (TargetRefused, Unavailable):
        return
    assert found.host == "shop.example"
    assert httpx.URL(found.url).host == "shop.example"


async def test_a_name_without_an_address_is_unavailable_for_now() -> None:
    for names in (Names(), Names([])):
        with pytest.raises(Unavailable, match=r"^shop\.example has no address now"):
            await target("https://shop.example/", "shop.example", resolve=names)


async def test_a_host_that_only_a_star_admits_is_not_repeated_in_messages() -> None:
    with pytest.raises(TargetRefused, match="the host is at a private address"):
        await target("https://ann-smith.shop.example/", "*.shop.example", resolve=Names(["10.0.0.1"]))


async def test_the_system_resolver_knows_localhost() -> None:
    assert set(await system_resolver("localhost", 80)) <= {"127.0.0.1", "::1"}


@pytest.mark.parametrize(
    "pattern",
    [
        "https://shop.example",
        "shop.example/path",
        "*shop.example",
        "a.*.example",
        "*.*",
        "shop.example:0",
        "shop.example:99999",
        "shöp.example",
        "user@shop.example",
        "::1",
        "[::1",
        "*.127.0.0.1",
        "0x7f.1",
        "*.",
        "[shop.example]",
        "",
        "a b",
    ],
)
def test_a_pattern_that_means_nothing_is_found_at_start(pattern: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^tools\.toml: hosts: .* is no host; write 'example\.org'"):
        check_hosts([pattern], "tools.toml: hosts")


def test_patterns_are_kept_in_lower_case() -> None:
    patterns = ["Shop.Example", "*.shop.example:8443", "192.0.2.7", "[2001:DB8::7]:*", "*", "*:*", "localhost:*"]
    assert check_hosts(patterns, "x") == tuple(pattern.lower() for pattern in patterns)


async def test_a_connection_goes_to_the_checked_address_however_the_name_moves() -> None:
    async with web({"/": page("inside the right house")}) as server:
        names = Names(["127.0.0.1"], ["169.254.169.254"])
        found = await target(
            f"http://shop.example:{server.port}/", "shop.example:*", resolve=names, private=("shop.example",)
        )
        async with pinned_client(found, timeout=SOON) as client:
            assert (await client.get(found.url)).text == "inside the right house"
            assert (await client.get(found.url)).text == "inside the right house"
    assert names.asked == ["shop.example"]
    assert f"host: shop.example:{server.port}\r\n" in server.asked[0].lower()


async def test_the_next_address_is_tried_when_one_does_not_accept() -> None:
    async with web({"/": page("second door")}, host="127.0.0.1") as server:
        found = CheckedTarget(
            url=f"http://shop.example:{server.port}/",
            scheme="http",
            host="shop.example",
            port=server.port,
            addresses=("127.0.0.9", "127.0.0.1"),
        )
        async with pinned_client(found, timeout=SOON) as client:
            assert (await client.get(found.url)).text == "second door"
    assert len(server.asked) == 1


async def test_a_client_reaches_nothing_but_its_target() -> None:
    async with web({"/": redirect("http://127.0.0.1/")}) as server, web({"/": page("other")}) as other:
        found = await target(f"{server.root}/", "127.0.0.1:*", private=("127.0.0.1",))
        async with pinned_client(found, timeout=SOON) as client:
            assert (await client.get(found.url)).status_code == 302  # handed over, not followed
            for url in (f"{other.root}/", f"http://localhost:{server.port}/", f"https://127.0.0.1:{server.port}/"):
                with pytest.raises(TargetRefused, match="another host"):
                    await client.get(url)
    assert len(server.asked) == 1
    assert other.asked == []


async def test_a_client_sends_no_cookies_passwords_or_proxied_requests(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login ann password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with web({"/": page("hello", headers="Set-Cookie: session=1; Path=/\r\n")}) as server:
        found = await target(f"{server.root}/", "127.0.0.1:*", private=("127.0.0.1",))
        async with pinned_client(found, timeout=SOON) as client:
            await client.get(found.url)
            await client.get(found.url)
    sent = "".join(server.asked).lower()
    assert "cookie" not in sent
    assert "authorization" not in sent
    assert sent.count("accept-encoding: identity") == 2


async def test_a_url_is_not_written_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with web({"/hooks/T0PSECRET": page("ok")}) as server:
        found = await target(f"{server.root}/hooks/T0PSECRET", "127.0.0.1:*", private=("127.0.0.1",))
        async with pinned_client(found, timeout=SOON) as client:
            assert (await client.get(found.url)).text == "ok"
    assert "T0PSECRET" not in caplog.text


async def test_tls_is_checked_for_the_name_and_not_for_the_address(tmp_path: Path) -> None:
    server_side, client_side = certificate("shop.example", tmp_path)
    seen: list[str | None] = []
    server_side.sni_callback = lambda _socket, name, _context: seen.append(name)
    async with web({"/": page("over TLS")}, tls=server_side) as server:
        for host, trusted in (("shop.example", True), ("evil.test", False)):
            found = await target(
                f"https://{host}:{server.port}/", f"{host}:*", resolve=Names(["127.0.0.1"]), private=(host,)
            )
            async with pinned_client(found, timeout=SOON, tls=client_side) as client:
                if trusted:
                    assert (await client.get(found.url)).text == "over TLS"
                else:
                    with pytest.raises(httpx.ConnectError, match="certificate"):
                        await client.get(found.url)
        async with pinned_client(found, timeout=SOON) as client:  # a certificate that no authority signed
            with pytest.raises(httpx.ConnectError):
                await client.get(found.url)
    assert seen == ["shop.example", "evil.test", "evil.test"]
    assert len(server.asked) == 1


def certificate(name: str, directory: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts of a server that is `name` and of a client that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (directory / "certificate.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (directory / "key.pem").write_bytes(private)
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(directory / "certificate.pem", directory / "key.pem")
    return server_side, ssl.create_default_context(cafile=str(directory / "certificate.pem"))
