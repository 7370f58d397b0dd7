"""Settings come from one file and from variables that win; a wrong one is named, and a secret never is."""

import os
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from holdfast.errors import ConfigurationError
from holdfast.settings import Duration, Settings, load_settings

SECRET = "sk-do-not-tell"


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings but those of the test."""
    for name in list(os.environ):
        if name.startswith("HOLDFAST_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def file(text: str | bytes, monkeypatch: pytest.MonkeyPatch, name: str = "settings.toml") -> Path:
    """Write a settings file and have it used."""
    path = Path(name).absolute()
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    monkeypatch.setenv("HOLDFAST_CONFIG", str(path))
    return path


def test_without_file_and_variables_everything_is_local_and_private() -> None:
    settings = load_settings()
    assert settings.gateway.host == "127.0.0.1"
    assert settings.engine.address.startswith("127.0.0.1:")
    assert settings.api_keys == ()
    assert settings.ledger.url.startswith("sqlite")
    assert settings.knowledge.url == ""
    assert settings.telemetry.otlp_endpoint == ""
    assert settings.telemetry.capture_content is False


def test_variables_win_over_the_file_and_options_over_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    file('[gateway]\nport = 1001\nmax_wait = "5s"\n', monkeypatch)
    assert load_settings().gateway.port == 1001
    monkeypatch.setenv("HOLDFAST_GATEWAY__PORT", "1002")
    settings = load_settings()
    assert (settings.gateway.port, settings.gateway.max_wait) == (1002, timedelta(seconds=5))
    assert load_settings(gateway={"port": 1003}).gateway.port == 1003


def test_the_usual_file_is_found_and_may_be_absent() -> None:
    assert load_settings().gateway.port == 8080
    Path("config").mkdir()
    Path("config/holdfast.toml").write_text("[gateway]\nport = 1001\n")
    assert load_settings().gateway.port == 1001


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[gateway\nport = 1", ["not valid TOML", "line 1"]),
        (b"config_dir = '\xff'", ["not valid TOML"]),
        ("[gateway]\nprot = 1\n", ["`gateway.prot`", "Did you mean 'port'?"]),
        ("[tiers.gold]\nwieght = 1\n", ["`tiers.gold.wieght`", "Did you mean 'weight'?"]),
        ("[gatewey]\nport = 1\n", ["`gatewey`", "Did you mean 'gateway'?"]),
        ("zzz = 1\n", ["`zzz`", "Known keys: ", "config_dir"]),
        ("[gateway]\nport = 70000\n", ["`gateway.port`", "65535"]),
        ("[gateway]\nmax_body_bytes = 1\n", ["`gateway.max_body_bytes`", "1024"]),
        ("gateway = 3\n", ["`gateway`"]),
        ("[engine]\nheartbeat_timeout = 20\n", ["`engine.heartbeat_timeout`", "needs a unit", "'20s'"]),
        ("[engine]\nheartbeat_timeout = '0s'\n", ["`engine.heartbeat_timeout`", "greater than"]),
        ("[telemetry]\nsemantic_conventions = 'v2'\n", ["`telemetry.semantic_conventions`"]),
        ("[gateway]\nhost = '0.0.0.0'\n", ["gateway.host", "no API key is set", "HOLDFAST_API_KEYS", "127.0.0.1"]),
    ],
)
def test_a_wrong_file_is_named_with_key_and_remedy(
    monkeypatch: pytest.MonkeyPatch, text: str | bytes, told: list[str]
) -> None:
    path = file(text, monkeypatch)
    with pytest.raises(ConfigurationError) as wrong:
        load_settings()
    message = str(wrong.value)
    assert [piece for piece in [str(path), *told] if piece not in message] == [], message


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("HOLDFAST_GATEWAY__PROT", "1", ["`gateway.prot`", "Did you mean 'port'?"]),
        ("HOLDFAST_GATEWAY__PORT", "many", ["`gateway.port`", "integer"]),
        ("HOLDFAST_GATWAY__PORT", "1", ["HOLDFAST_GATWAY__PORT", "Did you mean HOLDFAST_GATEWAY__PORT?"]),
        ("HOLDFAST_ZZZ__PORT", "1", ["HOLDFAST_ZZZ__PORT", "GATEWAY"]),
        ("HOLDFAST_LEDGER__RECALL_FOR", "3600", ["`ledger.recall_for`", "needs a unit", "'3600s'"]),
        ("HOLDFAST_LEDGER__RECALL_FOR", "-PT1H", ["`ledger.recall_for`", "'15m'"]),
        ("HOLDFAST_CONFIG", "nowhere.toml", ["HOLDFAST_CONFIG", "'nowhere.toml'", "not a file"]),
        ("HOLDFAST_CONFIG", ".", ["HOLDFAST_CONFIG", "not a file"]),
    ],
)
def test_a_wrong_variable_is_named_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, told: list[str]
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError) as wrong:
        load_settings()
    message = str(wrong.value)
    assert [piece for piece in told if piece not in message] == [], message


@pytest.mark.parametrize("secret", ["api_keys", "qdrant_api_key"])
def test_a_secret_in_a_file_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch, secret: str) -> None:
    path = file(f'{secret} = "{SECRET}=acme/ann"\n', monkeypatch)
    with pytest.raises(ConfigurationError) as wrong:
        load_settings()
    assert str(path) in str(wrong.value)
    assert f"HOLDFAST_{secret.upper()}" in str(wrong.value)
    assert SECRET not in str(wrong.value)


def test_api_keys_say_who_they_stand_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_API_KEYS", f"{SECRET}=acme/ann, k=with=equals=acme/bob/premium,")
    settings = load_settings(gateway={"host": "0.0.0.0"})
    ann, bob = settings.api_keys
    assert (ann.tenant, ann.user, ann.tier, ann.key.get_secret_value()) == ("acme", "ann", "standard", SECRET)
    assert (bob.tenant, bob.user, bob.tier, bob.key.get_secret_value()) == ("acme", "bob", "premium", "k=with=equals")
    assert SECRET not in repr(settings)
    assert SECRET not in settings.model_dump_json()


@pytest.mark.parametrize("entry", [SECRET, f"{SECRET}=acme", f"={SECRET}/ann", f"{SECRET}=acme/", f"{SECRET}=a/b/c/d"])
def test_a_malformed_api_key_is_named_by_its_place_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    monkeypatch.setenv("HOLDFAST_API_KEYS", f"good=acme/ann,{entry}")
    with pytest.raises(ConfigurationError) as wrong:
        load_settings()
    assert "`api_keys`" in str(wrong.value)
    assert "entry 2" in str(wrong.value)
    assert "KEY=tenant/user" in str(wrong.value)
    assert SECRET not in str(wrong.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
def test_a_gateway_without_keys_binds_to_loopback_only(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    with pytest.raises(ConfigurationError, match="no API key is set"):
        load_settings(gateway={"host": host})
    monkeypatch.setenv("HOLDFAST_API_KEYS", "key=acme/ann")
    assert load_settings(gateway={"host": host}).gateway.host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_a_gateway_without_keys_may_bind_to_loopback(host: str) -> None:
    assert load_settings(gateway={"host": host}).gateway.host == host


def test_every_setting_has_a_section_that_knows_no_other_key() -> None:
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and hasattr(field.annotation, "model_config"):
            with pytest.raises(ConfigurationError, match=f"`{name}.zzz`"):
                load_settings(**{name: {"zzz": 1}})


DURATION: TypeAdapter[timedelta] = TypeAdapter(Duration)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("90s", 90), ("15m", 900), ("1h30m", 5400), ("2d", 172_800), ("1.5h", 5400), ("PT90S", 90)],
)
def test_a_duration_is_written_with_its_unit(text: str, seconds: float) -> None:
    assert DURATION.validate_python(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "value", [90, 1.5, "90", " 90 ", "-90", "0s", "-5s", "-PT5S", "5x", "s", "", "1h 30m", None, True, []]
)
def test_what_is_no_positive_duration_is_refused(value: object) -> None:
    with pytest.raises(ValidationError):
        DURATION.validate_python(value)


@given(st.text(max_size=30) | st.from_regex(r"[0-9.]{1,30}(ms|s|m|h|d)", fullmatch=True))
def test_no_text_breaks_the_reading_of_durations(text: str) -> None:
    with suppress(ValidationError):
        assert DURATION.validate_python(text) > timedelta(0)
