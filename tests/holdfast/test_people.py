"""Who people are: read from a file, and read again when it changes."""

import logging
import os
from pathlib import Path

import pytest

from holdfast.errors import ConfigurationError
from holdfast.people import People

FILE = """
[tenants.acme.roles]
finance = ["ann", "bob"]
legal = ["bob"]

[tenants.acme.emails]
ann = "ann@example.org"

[tenants.other.roles]
finance = ["olga"]
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "people.toml"
    file.write_text(FILE)
    return file


def replace(path: Path, text: str) -> None:
    """Write a file as an editor does: beside it, then in its place."""
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.replace(path)


def test_roles_are_those_of_the_tenant(path: Path) -> None:
    people = People(path)
    assert people.roles_of("acme", "bob") == ("finance", "legal")
    assert people.roles_of("other", "bob") == ()
    assert people.roles_of("nobody", "ann") == ()
    assert people.email_of("acme", "ann") == "ann@example.org"
    assert people.email_of("acme", "bob") is None
    assert people.email_of("other", "ann") is None


def test_approvers_become_users_each_once(path: Path) -> None:
    people = People(path)
    assert people.users_of("acme", ("role:finance", "eve", "ann", "role:nobody", "*")) == ("ann", "bob", "eve")


@pytest.mark.parametrize("in_place", [True, False])
def test_whoever_is_taken_out_of_a_role_has_it_no_more(path: Path, in_place: bool) -> None:
    people = People(path)
    for without in ("ann", "bob"):
        other = {"ann": "bob", "bob": "ann"}[without]
        text = FILE.replace('["ann", "bob"]', f'["{other}"]')
        if in_place:
            path.write_text(text)
        else:
            replace(path, text)
        assert "finance" not in people.roles_of("acme", without), "the same size, within the same moment"
        assert "finance" in people.roles_of("acme", other)


def test_an_unchanged_file_is_not_read_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.utime(path, (1_000, 1_000))
    people = People(path)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: pytest.fail("read again"))
    assert people.roles_of("acme", "ann") == ("finance",)


def test_there_need_not_be_a_file_and_it_may_come_and_go(path: Path) -> None:
    path.unlink()
    people = People(path)
    assert people.roles_of("acme", "ann") == ()
    path.write_text(FILE)
    assert people.roles_of("acme", "ann") == ("finance",)
    path.unlink()
    assert people.roles_of("acme", "ann") == ()


def test_a_file_that_breaks_takes_every_role_and_says_so_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    people = People(path)
    path.write_text('[tenants.acme.roles]\nfinance = ["ann", "eve')
    with caplog.at_level(logging.ERROR, logger="holdfast.people"):
        assert people.roles_of("acme", "ann") == ()
        assert people.users_of("acme", ("role:finance", "cid")) == ("cid",)
    [line] = caplog.messages
    assert str(path) in line
    assert "eve" not in line
    path.write_text(FILE)
    assert people.roles_of("acme", "ann") == ("finance",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tenants.acme.rolls]\n", "Did you mean 'roles'"),
        ('[tenants.acme.roles]\nfinance = "ann"\n', """'finance' holds a single name; write a list: ["ann"]"""),
        ('[tenants.acme.roles]\n"fin ance" = ["ann"]\n', "'fin ance' is no name of a role"),
        ('[tenants.acme.roles]\nfinance = ["role:legal"]\n', "name users"),
        ('[tenants.acme.roles]\nfinance = ["*"]\n', "name users"),
        ('[tenants.acme.roles]\nfinance = ["deadline"]\n', "name users"),
        ('[tenants.acme.roles]\nfinance = ["ann "]\n', "'ann ', whom nobody can be"),
        ('[tenants.acme.emails]\nann = "ann@example..org"\n', "user 'ann'"),
        ('[tenants.acme.emails]\nann = ".ann@example.org"\n', "user 'ann'"),
        ('[tenants.acme.emails]\nann = "secret words"\n', "user 'ann'"),
        ('[tenants.acme.emails]\nann = "ann@example.org\\nBcc: eve@example.org"\n', "user 'ann'"),
        ("[tenants\n", "not valid TOML"),
    ],
)
def test_a_wrong_file_is_refused_at_start_with_the_place(path: Path, text: str, said: str) -> None:
    path.write_text(text)
    with pytest.raises(ConfigurationError) as refused:
        People(path)
    assert str(path) in str(refused.value)
    assert said in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_rule_may_name_only_roles_that_somebody_has(path: Path) -> None:
    people = People(path)
    people.check(("role:finance", "eve", "*"), "agents/refunds.toml: `approval.approvers`")
    with pytest.raises(ConfigurationError, match=r"refunds.toml.*'role:finanse'.*Did you mean 'finance'"):
        people.check(("role:finanse",), "agents/refunds.toml: `approval.approvers`")
