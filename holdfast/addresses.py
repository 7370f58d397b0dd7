"""Where Holdfast may send a request that others had a word in: `fetch_url`, webhooks.

An address is checked in one place and used as it was checked. The host has to be on a list; its name is resolved here,
once; every address that the name has must be a public one; and the connection goes to one of exactly these addresses,
with the name in TLS and in the `Host` header. So a name that resolves to something else a moment later changes nothing.
A redirect is another target and has to be checked again: no client made here follows one.

Messages never repeat a URL, because a path or a query may hold a secret, nor an address that a name resolved to,
because the insides of a network are nobody's business.
"""

import asyncio
import functools
import ipaddress
import logging
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx

from holdfast.errors import ConfigurationError, TargetRefused, Unavailable

# httpx logs every URL at INFO, and the secret of a webhook is often a part of its path.
logging.getLogger("httpx").setLevel(logging.WARNING)

MAX_URL_CHARACTERS = 4_096
"""Longest URL accepted."""

MAX_ADDRESSES = 16
"""How many addresses of a name are looked at and tried."""

_RESOLVE_SECONDS = 10.0
_PORTS: Mapping[str, int] = {"https": 443, "http": 80}

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""From a host name and a port to the addresses of the name, as text. An `OSError` says that there are none."""

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# IANA's special-purpose registries, and the addresses at which clouds hand credentials to whoever asks.
_NEVER: tuple[tuple[str, str], ...] = (
    ("0.0.0.0/8", "an unspecified"),
    ("169.254.0.0/16", "a link-local"),
    ("168.63.129.16/32", "a metadata"),
    ("100.100.100.200/32", "a metadata"),
    ("192.0.0.192/32", "a metadata"),
    ("224.0.0.0/4", "a multicast"),
    ("240.0.0.0/4", "a reserved"),
    ("::/128", "an unspecified"),
    ("::ffff:0:0/96", "an IPv4-mapped"),
    ("::/96", "an IPv4-compatible"),
    ("::ffff:0:0:0/96", "an IPv4-translated"),
    ("64:ff9b::/96", "a NAT64"),
    ("64:ff9b:1::/48", "a NAT64"),
    ("2001::/32", "a Teredo"),
    ("2002::/16", "a 6to4"),
    ("fe80::/10", "a link-local"),
    ("fec0::/10", "a site-local"),
    ("fd00:ec2::254/128", "a metadata"),
    ("fd20:ce::254/128", "a metadata"),
    ("ff00::/8", "a multicast"),
)
_PRIVATE: tuple[tuple[str, str], ...] = (
    ("10.0.0.0/8", "a private"),
    ("100.64.0.0/10", "a carrier's shared"),
    ("127.0.0.0/8", "a loopback"),
    ("172.16.0.0/12", "a private"),
    ("192.0.0.0/24", "a reserved"),
    ("192.0.2.0/24", "a documentation"),
    ("192.88.99.0/24", "a reserved"),
    ("192.168.0.0/16", "a private"),
    ("198.18.0.0/15", "a benchmarking"),
    ("198.51.100.0/24", "a documentation"),
    ("203.0.113.0/24", "a documentation"),
    ("::1/128", "a loopback"),
    ("fc00::/7", "a private"),
    ("2001::/23", "a reserved"),
    ("2001:db8::/32", "a documentation"),
    ("3fff::/20", "a documentation"),
)
_NEVER_NETWORKS = tuple((ipaddress.ip_network(network), kind) for network, kind in _NEVER)
_PRIVATE_NETWORKS = tuple((ipaddress.ip_network(network), kind) for network, kind in _PRIVATE)
_IPV6_LOOPBACK = ipaddress.IPv6Address("::1")
_IPV6_UNICAST = ipaddress.IPv6Network("2000::/3")
"""The only part of IPv6 from which public addresses are given out."""

_URL = re.compile(r"(?i:https?)://(?P<authority>[^/?#@\\]+)(?:[/?#].*)?", re.ASCII | re.DOTALL)
_AUTHORITY = re.compile(r"(?:\[[0-9a-fA-F:.]+\]|[^\[\]:@%\\]+)(?::[0-9]{1,5})?", re.ASCII)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_PATTERN = re.compile(r"(?P<host>\*|(?:\*\.)?[^*:\[\]/@]+|\[[^\[\]]+\])(?::(?P<port>[0-9]{1,5}|\*))?", re.ASCII)


@dataclass(frozen=True)
class CheckedTarget:
    """A URL that may be asked, with the addresses at which it may be asked."""

    url: str
    """Canonical, without a fragment."""
    scheme: str
    host: str
    """Lower case, in ASCII, without the brackets of IPv6 and without a final dot."""
    port: int
    addresses: tuple[str, ...]


async def system_resolver(host: str, port: int) -> Sequence[str]:
    """The addresses of a name as the operating system knows them, in its order of preference."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return tuple(str(sockaddr[0]) for *_, sockaddr in found)


async def checked(
    url: str,
    *,
    hosts: Sequence[str],
    private_hosts: Sequence[str] = (),
    schemes: Sequence[str] = ("https",),
    resolve: Resolver = system_resolver,
) -> CheckedTarget:
    """See whether a URL may be asked, and at which addresses.

    Args:
        url: Absolute URL, as a model, a redirect or a file has it.
        hosts: Patterns: `example.org`, `*.example.org` (every name below it, not itself), `*`, an address such as
            `192.0.2.7` or `[2001:db8::7]`. Without a port they stand for the scheme's own; `example.org:8443` names
            one, `example.org:*` any.
        private_hosts: Patterns of hosts that may be at private and loopback addresses; without a port they stand for
            any. Link-local, metadata, multicast and tunnelled addresses stay refused.
        schemes: Those admitted, `https` or `http`.
        resolve: Replaces the operating system's resolver.

    Raises:
        TargetRefused: The URL is malformed, not on the list, or somewhere that is not to be reached.
        Unavailable: The name does not resolve now.
    """
    parsed = _parsed(url, schemes)
    host, port = _host_of(parsed), parsed.port or _PORTS[parsed.scheme]
    if not _matches(hosts, host, port, _PORTS[parsed.scheme]):
        raise TargetRefused(f"the URL's host and port are not on the list, which has {_listed(hosts)}", field="url")
    literal = _address(host)
    name = host if host in {pattern.lower() for pattern in hosts} else "the host"
    addresses = (host,) if literal else await _resolved(host, port, name, resolve)
    private = _matches(private_hosts, host, port, port)
    for address in addresses:
        if (kind := forbidden_kind(address, private=private)) is not None:
            raise TargetRefused(f"{name} is at {kind} address, which may not be reached from here", field="url")
    canonical = parsed.copy_with(host=host, fragment=None)
    return CheckedTarget(url=str(canonical), scheme=parsed.scheme, host=host, port=port, addresses=addresses)


def forbidden_kind(address: str, *, private: bool = False) -> str | None:
    """Why an address may not be reached, as `a loopback`; `None` when it may.

    Args:
        address: IPv4 or IPv6 as text. Anything else is forbidden.
        private: Whether private and loopback addresses are admitted.
    """
    parsed = _address(address)
    if parsed is None:
        return "an unreadable"
    # Where networks overlap, the order of the tables counts: a metadata address may lie in a private network.
    for network, kind in _NEVER_NETWORKS:
        if parsed.version == network.version and parsed in network and parsed != _IPV6_LOOPBACK:
            return kind
    for network, kind in _PRIVATE_NETWORKS:
        if parsed.version == network.version and parsed in network:
            return None if private else kind
    if isinstance(parsed, ipaddress.IPv6Address) and parsed not in _IPV6_UNICAST:
        return "a reserved"
    return None


def check_hosts(patterns: Sequence[str], where: str) -> tuple[str, ...]:
    """The patterns in lower case, for `checked`.

    Args:
        patterns: As a file has them.
        where: File and key, for the message.

    Raises:
        ConfigurationError: A pattern that could never match, or would match more than it seems to.
    """
    for pattern in patterns:
        found = _PATTERN.fullmatch(pattern.lower())
        host = found["host"].removeprefix("*.") if found else ""
        port = found["port"] if found else None
        whole = host == "*" or _address(host.strip("[]")) is not None or _is_name(host)
        starred_address = pattern.startswith("*.") and _address(host) is not None
        if not found or not whole or starred_address or (port not in (None, "*") and not 0 < int(port or 0) < 65_536):
            raise ConfigurationError(
                f"{where}: {pattern!r} is no host; write 'example.org', '*.example.org', 'example.org:8443', "
                f"'192.0.2.7' or '[2001:db8::7]', in ASCII and without a scheme or path"
            )
    return tuple(pattern.lower() for pattern in patterns)


def pinned_client(
    target: CheckedTarget,
    *,
    timeout: timedelta,
    connect_timeout: timedelta = timedelta(seconds=10),
    headers: Mapping[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
) -> httpx.AsyncClient:
    """A client that can reach this target and nothing else.

    It follows no redirects, keeps no cookies, reads neither proxies nor passwords from the environment, and asks
    for no encoding, so that a body is as large as it seems. Close it after use.

    Args:
        target: From `checked`, moments ago.
        timeout: Longest silence while sending or reading. The whole exchange is the caller's to bound.
        connect_timeout: For each address that is tried.
        headers: Sent with every request.
        tls: Replaces the certificates of the system, in tests.
    """
    return httpx.AsyncClient(
        transport=PinnedTransport(target, tls=tls),
        timeout=httpx.Timeout(timeout.total_seconds(), connect=connect_timeout.total_seconds()),
        headers={"Accept-Encoding": "identity", "User-Agent": "holdfast", **(headers or {})},
        follow_redirects=False,
        trust_env=False,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
    )


class PinnedTransport(httpx.AsyncBaseTransport):
    """Sends requests for one origin to its checked addresses, one after another until one accepts the connection."""

    def __init__(self, target: CheckedTarget, *, tls: ssl.SSLContext | None = None) -> None:
        self._target = target
        self._inner = httpx.AsyncHTTPTransport(verify=tls or _trusted(), trust_env=False)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request, if it is one for the target's origin.

        Raises:
            TargetRefused: It is for another.
            httpx.HTTPError: None of the addresses can be connected to, or the exchange failed.
        """
        url = request.url
        origin = (url.scheme, url.host.removesuffix("."), url.port or _PORTS.get(url.scheme, 0))
        if origin != (self._target.scheme, self._target.host, self._target.port):
            raise TargetRefused("a request for another host than the one that was checked", field="url")
        *before, last = self._target.addresses
        for address in before:
            try:
                return await self._inner.handle_async_request(self._at(address, request))
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue  # nothing was sent, so the next address may be tried
        return await self._inner.handle_async_request(self._at(last, request))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()

    def _at(self, address: str, request: httpx.Request) -> httpx.Request:
        return httpx.Request(
            request.method,
            request.url.copy_with(host=address),
            headers=request.headers,  # the Host header among them still names the host
            stream=request.stream,
            extensions={**request.extensions, "sni_hostname": self._target.host},
        )


def _parsed(url: str, schemes: Sequence[str]) -> httpx.URL:
    """The URL as the client that sends it will read it, after refusing what other readers read otherwise."""
    if len(url) > MAX_URL_CHARACTERS:
        raise TargetRefused(f"the URL is longer than {MAX_URL_CHARACTERS} characters", field="url")
    if any(char.isspace() or not char.isprintable() or char == "\\" for char in url):
        raise TargetRefused("the URL holds a space, a backslash or a control character; encode it", field="url")
    if "://" not in url or url.partition("://")[0].lower() not in schemes:
        raise TargetRefused(f"the URL must begin with {' or '.join(f'{one}://' for one in schemes)}", field="url")
    authority = re.split(r"[/?#]", url.partition("://")[2], maxsplit=1)[0]
    if "@" in authority:
        raise TargetRefused("the URL holds a user name or password; leave it out", field="url")
    if not _URL.fullmatch(url) or not _AUTHORITY.fullmatch(authority):
        raise TargetRefused("the URL has no readable host and port", field="url")
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        raise TargetRefused("the URL cannot be read", field="url") from None
    if parsed.userinfo or parsed.scheme not in schemes or (parsed.port is not None and not 0 < parsed.port < 65_536):
        raise TargetRefused("the URL has no readable host and port", field="url")
    return parsed


def _host_of(parsed: httpx.URL) -> str:
    host = parsed.raw_host.decode("ascii").lower().removesuffix(".")
    if _address(host) is None and not _is_name(host):
        raise TargetRefused("the URL's host is neither a name nor an address in its usual form", field="url")
    return host


def _is_name(host: str) -> bool:
    """Whether it is a host name that no resolver takes for a number: `0x7f.1`, `017700000001` and `2130706433` are."""
    labels = host.split(".")
    return len(host) <= 253 and all(map(_LABEL.fullmatch, labels)) and not _NUMBER.fullmatch(labels[-1])


def _address(text: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return None if isinstance(address, ipaddress.IPv6Address) and address.scope_id else address


def _matches(patterns: Sequence[str], host: str, port: int, default_port: int) -> bool:
    for pattern in patterns:
        if (found := _PATTERN.fullmatch(pattern.lower())) is None:
            continue
        allowed, stated = found["host"], found["port"]
        if stated != "*" and port != (int(stated) if stated else default_port):
            continue
        # A star stands for names only: what a list of names admits must not depend on how an address is written.
        below = allowed.startswith("*.") and _address(host) is None and host.endswith(allowed[1:])
        if allowed in ("*", host) or below or _same_address(allowed.strip("[]"), host):
            return True
    return False


def _same_address(allowed: str, host: str) -> bool:
    return (address := _address(allowed)) is not None and address == _address(host)


def _listed(hosts: Sequence[str]) -> str:
    shown = ", ".join(hosts[:20]) or "no host"
    return f"{shown} and {len(hosts) - 20} more" if len(hosts) > 20 else shown


async def _resolved(host: str, port: int, name: str, resolve: Resolver) -> tuple[str, ...]:
    try:
        async with asyncio.timeout(_RESOLVE_SECONDS):
            found = await resolve(host, port)
    except (OSError, UnicodeError):  # a timeout is an OSError too
        found = ()
    if not found:
        raise Unavailable(f"{name} has no address now; see whether its name is right and the resolver answers")
    return tuple(dict.fromkeys(found))[:MAX_ADDRESSES]


@functools.cache
def _trusted() -> ssl.SSLContext:
    """The certificates of the system or of `SSL_CERT_FILE`, read once: reading them takes 20 ms."""
    return httpx.create_ssl_context(trust_env=True)
