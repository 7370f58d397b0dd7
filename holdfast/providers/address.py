"""Where a provider is reached and with which key, checked before anything is sent."""

from urllib.parse import urlsplit

from pydantic import SecretStr

from holdfast.errors import ConfigurationError


def checked_base_url(base_url: str, example: str) -> str:
    """An address without a slash at its end.

    Args:
        base_url: As configured.
        example: A right one, for the message.

    Raises:
        ConfigurationError: It is no HTTP address, or holds what belongs elsewhere.
    """
    try:
        parts = urlsplit(base_url.strip())
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError(f"`base_url` must be an address like {example!r}.")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigurationError(
            f"`base_url` of {parts.hostname!r} must hold no user, password, query or fragment; "
            "name the variable with the key in `api_key_env`."
        )
    return base_url.strip().rstrip("/")


def checked_key(api_key: SecretStr | str | None) -> SecretStr | None:
    """A key that a header can carry, or none.

    Raises:
        ConfigurationError: It holds other characters; the message does not repeat it.
    """
    text = (api_key.get_secret_value() if isinstance(api_key, SecretStr) else api_key or "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isprintable()):
        raise ConfigurationError(
            "The API key holds characters that an HTTP header cannot carry; set it again, without line breaks."
        )
    return SecretStr(text)
