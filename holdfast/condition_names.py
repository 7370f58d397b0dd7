"""Whether the values that a condition names can be there, as far as schemas tell. Pure.

A value that is missing counts as a reason to ask people, so `args.amuont > 50` would ask about every refund. Nobody is
harmed by that, and nobody finds out; here it is found when the agent is loaded.
"""

import difflib
from collections.abc import Mapping

import lark

from holdfast.shapes import Shape

Node = lark.Tree[lark.Token] | lark.Token

_LOOPS = frozenset({"all", "exists", "exists_one", "filter", "map"})
_ANYTHING = Shape("", anything=True)


class UnknownName(Exception):
    """A condition names what its value cannot have; the message says so, and what there is."""


def check_names(tree: lark.Tree[lark.Token], shapes: Mapping[str, Shape]) -> None:
    """Check every name behind a variable.

    Args:
        tree: A parsed expression.
        shapes: What is known of its variables.

    Raises:
        UnknownName: The first that cannot be there.
    """
    _look(tree, shapes)


def _look(node: Node, scope: Mapping[str, Shape]) -> Shape:
    """What is known of the value of a part of an expression."""
    if isinstance(node, lark.Token):
        return _ANYTHING
    children = node.children
    match node.data:
        case "ident" | "dot_ident":
            return scope.get(str(children[0]), _ANYTHING)
        case "member_dot":
            return _member(_look(children[0], scope), str(children[1]))
        case "member_index":
            return _index(_look(children[0], scope), children[1], scope)
        case "member_dot_arg" if str(children[1]) in _LOOPS:
            return _loop(node, scope)
        case "relation" if isinstance(children[0], lark.Tree) and children[0].data == "relation_in":
            name, looked_in = _text(children[0].children[0]), _look(children[-1], scope)
            if name is not None and looked_in.names:
                _member(looked_in, name)
            return _ANYTHING
    found = [_look(child, scope) for child in children if isinstance(child, lark.Tree)]
    # What has one part is that part in parentheses, or a rule of the grammar that did not apply; calls are neither.
    passes = len(children) == 1 and len(found) == 1 and not str(node.data).startswith(("unary_", "relation_"))
    return found[0] if passes else _ANYTHING


def _loop(loop: lark.Tree[lark.Token], scope: Mapping[str, Shape]) -> Shape:
    through = _look(loop.children[0], scope)
    arguments = loop.children[2] if len(loop.children) > 2 else None
    if not isinstance(arguments, lark.Tree):
        return _ANYTHING
    first = arguments.children[0]
    own = [str(token) for token in first.scan_values(lambda _: True)] if isinstance(first, lark.Tree) else []
    inner = {**scope, own[0]: through.item()} if len(own) == 1 else scope
    for part in arguments.children[1:]:
        _look(part, inner)
    return through if str(loop.children[1]) == "filter" else _ANYTHING


def _index(value: Shape, index: Node, scope: Mapping[str, Shape]) -> Shape:
    name = _text(index)
    if name is not None:
        return _member(value, name)
    _look(index, scope)
    # A number chooses an item; a name that is made up when it is evaluated could be any.
    return value.item() if not value.names else _ANYTHING


def _member(value: Shape, name: str) -> Shape:
    found = value.member(name)
    if found is not None:
        return found
    names = value.names
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        hint = f"Did you mean {near[0]!r}?"
    elif names:
        hint = f"`{value.path}` has {', '.join(names)}."
    else:
        hint = f"`{value.path}` is a value without names."
    raise UnknownName(f"names '{value.path}.{name}', which there is not. {hint}")


def _text(node: Node) -> str | None:
    """The text that a part of an expression is, if it is nothing but a plain literal."""
    if isinstance(node, lark.Token):
        return None
    while isinstance(node, lark.Tree) and node.data != "literal":
        if len(node.children) != 1:
            return None
        node = node.children[0]
    literal = str(node.children[0]) if isinstance(node, lark.Tree) else ""
    plain = len(literal) > 1 and literal[0] == literal[-1] and literal[0] in "'\"" and "\\" not in literal
    return literal[1:-1] if plain and literal[0] not in literal[1:-1] else None
