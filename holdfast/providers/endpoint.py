"""A provider's server as an adapter knows it: where it is, the key that it wants, and the connections to it."""

from collections.abc import Mapping

from pydantic import SecretStr

from holdfast.providers.address import checked_base_url, checked_key
from holdfast.providers.http import HttpStream

_OPENAI = "https://api.openai.com/v1"
_ANTHROPIC = "https://api.anthropic.com/v1"


class Endpoint:
    """A server, and how requests to it begin.

    Args:
        url: The API's base, without a slash at its end.
        api_key: The key; `None` or empty for a server without keys.
        client: Shared by the process's providers, and then closed by whoever made it; without one, a client of its own.
        key_header: Which header has the key.
        key_form: The header's value, with `{}` for the key.
        headers: Further headers of every request.

    Raises:
        ConfigurationError: The key cannot be used in an HTTP request.
    """

    def __init__(
        self,
        url: str,
        api_key: SecretStr | str | None,
        client: HttpStream | None,
        *,
        key_header: str,
        key_form: str = "{}",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.url = url
        self.client = HttpStream() if client is None else client
        self._owns_client = client is None
        self._api_key = checked_key(api_key)
        self._key_header = key_header
        self._key_form = key_form
        self._headers = dict(headers or {})

    def __repr__(self) -> str:
        return f"Endpoint({self.url!r})"

    def headers(self, attempt_id: str = "") -> dict[str, str]:
        """The headers of a request, with the id of the attempt that it is, if it has one."""
        made = dict(self._headers)
        if self._api_key is not None:
            made[self._key_header] = self._key_form.format(self._api_key.get_secret_value())
        if attempt_id:
            made["X-Client-Request-Id"] = attempt_id
        return made

    async def aclose(self) -> None:
        """Close the connections, unless the client is shared."""
        if self._owns_client:
            await self.client.aclose()


def openai_endpoint(base_url: str, api_key: SecretStr | str | None, client: HttpStream | None) -> Endpoint:
    """A server that takes a bearer token.

    Raises:
        ConfigurationError: The address or the key cannot be used in an HTTP request.
    """
    url = checked_base_url(base_url, _OPENAI)
    return Endpoint(url, api_key, client, key_header="Authorization", key_form="Bearer {}")


def anthropic_endpoint(
    base_url: str, api_key: SecretStr | str | None, client: HttpStream | None, version: str
) -> Endpoint:
    """A server that takes `x-api-key`; a missing `/v1` is added, because Anthropic's own clients go without it.

    Raises:
        ConfigurationError: The address or the key cannot be used in an HTTP request.
    """
    url = checked_base_url(base_url, _ANTHROPIC)
    url = url if url.endswith("/v1") else f"{url}/v1"
    return Endpoint(url, api_key, client, key_header="x-api-key", headers={"anthropic-version": version})
