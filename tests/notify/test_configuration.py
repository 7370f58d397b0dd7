"""`notifications.toml` is checked whole at start, and what is wrong is named without a secret."""

from pathlib import Path

import pytest

from holdfast.errors import ConfigurationError
from holdfast.notify import Notifications, load_notifications
from tests.notify.targets import OLD_SECRET, SECRET

ENVIRONMENT = {
    "OPS": SECRET,
    "OLD": OLD_SECRET,
    "SHORT": "whsec_c2hvcnQ=",
    "PLAIN": "hunter2",
    "EMPTY": "",
    "WHERE": "https://hooks.example.org/path-secret",
    "USER": "holdfast",
    "PASSWORD": "password-secret",
}
HOOK = '[webhooks.ops]\nurl = "https://hooks.example.org/path-secret"\nsecret_env = "OPS"\n'
EMAIL = '[email]\nhost = "mail.example.org"\nfrom = "Holdfast <holdfast@example.org>"\n'


def load(directory: Path, text: str) -> Notifications:
    """Read a file."""
    (directory / "notifications.toml").write_text(text)
    return load_notifications(directory, ENVIRONMENT, ["support", "billing"])


def test_without_a_file_nobody_is_told(tmp_path: Path) -> None:
    assert load_notifications(tmp_path, {}, []) == Notifications({})


def test_three_lines_are_a_webhook_that_is_told_everything(tmp_path: Path) -> None:
    hook = load(tmp_path, HOOK).webhooks["ops"]
    assert hook.host == "hooks.example.org:443"
    assert hook.wanted.wants("approval.opened", "support", "acme")
    assert hook.wanted.wants("request.completed", "billing", "globex")


def test_a_target_is_told_only_of_the_events_agents_and_tenants_it_names(tmp_path: Path) -> None:
    text = HOOK + 'events = ["approval.*"]\nagents = "support"\ntenants = ["acme"]\n'
    wanted = load(tmp_path, text).webhooks["ops"].wanted
    assert wanted.wants("approval.decided", "support", "acme")
    assert not wanted.wants("request.completed", "support", "acme")
    assert not wanted.wants("approval.decided", "billing", "acme")
    assert not wanted.wants("approval.decided", "support", "globex")


def test_an_address_that_is_a_secret_comes_from_the_environment(tmp_path: Path) -> None:
    text = '[webhooks.ops]\nurl_env = "WHERE"\nsecret_env = ["OPS", "OLD"]\n'
    hook = load(tmp_path, text).webhooks["ops"]
    assert hook.url.get_secret_value() == ENVIRONMENT["WHERE"]
    assert [secret.get_secret_value() for secret in hook.secrets] == [SECRET, OLD_SECRET]


def test_a_mail_server_has_a_password_and_a_sender(tmp_path: Path) -> None:
    email = load(tmp_path, EMAIL + 'user_env = "USER"\npassword_env = "PASSWORD"\n').email
    assert email is not None
    assert email.password is not None
    assert (email.sender_name, email.sender, email.starttls) == ("Holdfast", "holdfast@example.org", True)
    assert email.password.get_secret_value() == "password-secret"
    assert email.wanted.wants("approval.opened", "support", "acme")
    assert not email.wanted.wants("request.completed", "support", "acme")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[webhooks.ops", "not valid TOML"),
        ('[webhook.ops]\nurl = "https://x.org"', "`webhook`: Extra inputs are not permitted. Did you mean 'webhooks'?"),
        ('[webhooks.ops]\nurl = "https://x.org"', "`webhooks.ops.secret_env`: Field required"),
        ('[webhooks.ops]\nsecret_env = "OPS"', "`webhooks.ops`: give it either `url`, or `url_env`"),
        (HOOK + 'url_env = "WHERE"', "`webhooks.ops`: give it either `url`, or `url_env`"),
        (HOOK.replace("OPS", "NONE"), "`webhooks.ops.secret_env` names the variable 'NONE', which is not set"),
        (HOOK.replace("OPS", "EMPTY"), "`webhooks.ops.secret_env` names the variable 'EMPTY', which is not set"),
        (HOOK.replace("OPS", "SHORT"), "SHORT is no signing secret; it must be 'whsec_' and"),
        (HOOK.replace("OPS", "PLAIN"), "PLAIN is no signing secret"),
        (HOOK.replace("https:", "http:"), "`webhooks.ops.url` must be https://host..., or set `http = true`"),
        (HOOK.replace("https://", "https://me:password-secret@"), "holds a user name or password"),
        (HOOK.replace("hooks.example.org", "127.0.0.1"), "is at a loopback address; list its host in `private_hosts`"),
        (HOOK.replace("hooks.example.org", "[::1]"), "is at a loopback address"),
        (HOOK.replace("hooks.example.org", "localhost"), "is at a loopback address"),
        (HOOK.replace("hooks.example.org", "10.1.2.3"), "is at a private address"),
        (HOOK.replace("hooks.example.org", "hooks.example.org:x"), "`webhooks.ops.url` is not a URL"),
        (HOOK.replace("hooks.example.org", "hö.example.org"), "is no host"),
        (HOOK + 'private_hosts = ["http://x"]', "`webhooks.ops.private_hosts`: 'http://x' is no host"),
        (HOOK + 'events = ["approval.open"]', "no event is called 'approval.open'. Did you mean 'approval.opened'?"),
        (HOOK + "events = []", "`webhooks.ops.events` is empty"),
        (HOOK + 'agents = ["suport"]', "agent 'suport' is not defined. Did you mean 'support'?"),
        (HOOK + "[sending]\ngive_up_after = 5", "`sending.give_up_after`: a duration needs a unit"),
        (HOOK + '[sending]\ntimeout = "5m"', "`sending.timeout`"),
        (HOOK + '[sending]\ngive_up_after = "31d"', "`sending.give_up_after`"),
        (EMAIL.replace("Holdfast <holdfast@example.org>", "nobody"), "`email.from` is no e-mail address"),
        (EMAIL.replace("Holdfast <holdfast@example.org>", "a@b.org, c@d.org"), "`email.from` is no e-mail address"),
        (EMAIL.replace("Holdfast <", "Holdfast\\r\\nBcc: x@y.org <"), "`email.from` is no e-mail address"),
        (EMAIL.replace("mail.example.org", "smtps://mail.example.org"), "`email.host` is no host"),
        (EMAIL.replace("mail.example.org", "mail\\r\\nQUIT"), "`email.host` is no host"),
        (EMAIL + 'user_env = "USER"', "give both `user_env` and `password_env`"),
        (
            EMAIL + 'starttls = false\nuser_env = "USER"\npassword_env = "PASSWORD"',
            "a password is not sent in the clear",
        ),
    ],
)
def test_what_is_wrong_is_named_with_file_and_key_and_without_a_secret(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ConfigurationError) as found:
        load(tmp_path, text)
    message = str(found.value)
    assert named in message
    assert "notifications.toml" in message
    for secret in ("path-secret", "password-secret", "hunter2", "c2hvcnQ", SECRET[6:]):
        assert secret not in message
