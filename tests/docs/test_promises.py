"""PROMISES.md names tests; here it is made sure that they exist."""

import ast
import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PROMISES = (REPOSITORY / "PROMISES.md").read_text(encoding="utf-8")
_ID = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def functions_in(file: Path) -> set[str]:
    """The test functions of a module, found without importing it."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    names = {function.name for function in functions}
    # Hypothesis state machines are bound to a name.
    names |= {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    return {name for name in names if name.startswith("test_")}


def test_every_promise_is_held_by_a_test_that_exists() -> None:
    named = _ID.findall(PROMISES)
    assert named
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not (REPOSITORY / path).is_file() or name not in functions_in(REPOSITORY / path)
    ]
    assert not missing


def test_no_promise_is_without_a_test() -> None:
    promises = re.split(r"^- ", PROMISES, flags=re.MULTILINE)[1:]
    assert promises
    assert not [promise for promise in promises if not _ID.search(promise)]


def test_no_test_is_named_in_another_form() -> None:
    assert PROMISES.count("::") == len(_ID.findall(PROMISES))
