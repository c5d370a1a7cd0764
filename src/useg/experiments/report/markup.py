"""HTML and SVG as values: text is escaped when it is put in, so no file name can become markup."""

from html import escape

__all__ = ["Markup", "joined", "tag"]

_VOID = frozenset({"br", "hr", "img", "input", "meta"})


class Markup(str):
    """Text that is markup already, made by `tag` or `joined`, or a constant of ours."""


Content = str | int | float | None


def tag(name: str, /, *children: Content, **attributes: str | int | float | bool | None) -> Markup:
    """Write an element.

    Args:
        name: of the element.
        children: markup as it is, anything else escaped; None is left out.
        attributes: with `_` for `-`, and a `_` at the end where Python has the word (`class_`). None and
            False leave the attribute out, True writes it without a value.
    """
    parts = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        parts.append(key if value is True else f'{key}="{escape(str(value), quote=True)}"')
    opening = f"<{' '.join(parts)}>"
    return Markup(opening if name in _VOID else f"{opening}{joined(*children)}</{name}>")


def joined(*children: Content) -> Markup:
    """Put pieces one after the other, escaping those that are not markup."""
    return Markup(
        "".join(
            child if isinstance(child, Markup) else escape(str(child), quote=False)
            for child in children
            if child is not None
        )
    )
