"""A page as one HTML file that needs no other file and no network, written whole or not at all."""

from importlib.resources import files
from pathlib import Path

from useg.experiments.report.markup import Markup, joined, tag
from useg.home.folder import write_atomically

__all__ = ["section", "write_page"]

_SECURITY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""No script runs and nothing is fetched, whatever is written on the page."""


def write_page(path: Path, title: str, *content: Markup | None, style: str = "") -> None:
    """Write a page.

    Args:
        path: of the file. title: shown by browsers. content: of the page; None is left out.
        style: besides that of all pages.

    Raises:
        ResourceError: it cannot be written.
    """
    common = files("useg.experiments.report").joinpath("style.css").read_text(encoding="utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_SECURITY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{title} - useg"),
        tag("style", Markup(common + style)),
    )
    end = tag("footer", "Written by useg. This page needs no other file and no network.")
    page = tag("html", head, tag("body", tag("main", *content, end)), lang="en")
    write_atomically(path, joined(Markup("<!doctype html>\n"), page).encode("utf-8", "replace"))


def section(title: str, *content: Markup | None) -> list[Markup]:
    """A heading and what stands below it; nothing where nothing does."""
    there = [piece for piece in content if piece]
    return [tag("h2", title), *there] if there else []
