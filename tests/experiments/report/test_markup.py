from html import unescape

from hypothesis import given
from hypothesis import strategies as st

from useg.experiments.report.markup import Markup, joined, tag


@given(st.text())
def test_text_and_attributes_come_back_as_they_were(text):
    written = tag("p", text, title=text)
    body = written.removeprefix("<p title=").removesuffix("</p>")
    attribute, _, content = body.rpartition(">")
    assert unescape(attribute) == f'"{text}"'
    assert unescape(content) == text
    assert "<" not in body


def test_markup_is_not_escaped_twice():
    inner = tag("b", "a < b")
    assert tag("p", inner, " & ", 3, None) == "<p><b>a &lt; b</b> &amp; 3</p>"
    assert joined(Markup("<i>"), "<i>") == "<i>&lt;i&gt;"


def test_attributes_are_left_out_or_written_bare():
    assert tag("img", alt="", hidden=True, id=None, class_="a", text_anchor="end") == (
        '<img alt="" hidden class="a" text-anchor="end">'
    )
    assert tag("p", hidden=False) == "<p></p>"
