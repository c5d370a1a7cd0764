"""Folding: plain text stays as it is, of bars of progress the last form stays, however the bytes come in."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.live import Live
from rich.progress import Progress
from rich.text import Text

from useg.runs.folding import Folding


def folded(content: bytes) -> bytes:
    folding = Folding()
    return folding.feed(content) + folding.close()


@given(st.text(st.characters(blacklist_categories=["Cc", "Cs"], whitelist_characters="\n\t")))
def test_plain_text_stays(text: str) -> None:
    content = text.encode()
    assert folded(content) == (content if content.endswith(b"\n") or not content else content + b"\n")


PARTS = [b"a", b"bc", b"\n", b"\r", b"\r\n", b"\x1b[1A", b"\x1b[2K", b"\x1b[J", b"\x1b[31m", b"\x1b[1B", b"\x1b[99A",
         b"\x1b]0;title\x07", b"\x1b", b"\x00", "ä".encode()]  # fmt: skip


@given(st.lists(st.sampled_from(PARTS)), st.data())
def test_it_does_not_matter_where_it_is_cut(parts: list[bytes], data: st.DataObject) -> None:
    content, folding, found, start = b"".join(parts), Folding(), b"", 0
    while start < len(content):
        end = data.draw(st.integers(start + 1, len(content)))
        found += folding.feed(content[start:end])
        start = end
    assert found + folding.close() == folded(content)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"epoch 1\repoch 2\repoch 3\n", b"epoch 3\n"),
        (b"done\r\nnext\r\n", b"done\nnext\n"),
        (b"10 %\r", b"10 %\n"),
        (b"no end", b"no end\n"),
        (b"\x1b[1;31mred\x1b[0m\n", b"red\n"),
        (b"\x1b[2Aone\ntwo\n\x1b[2A\x1b[2Kthree\n\x1b[2Kfour\n", b"three\nfour\n"),
        (b"\x1b[1Abar 1\nbar 2\r\x1b[2K\x1b[1A\x1b[2Kgone\x1b[J", b"gone\n"),
        (b"\x1b]0;title\x07text\n", b"text\n"),
        (b"a\x08b\x07\n", b"ab\n"),
        (b"\xff\xfe raw\n", b"\xff\xfe raw\n"),
        (b"one\n\n\ntwo\n", b"one\n\n\ntwo\n"),
        (b"", b""),
    ],
)
def test_small_ones_by_eye(content: bytes, expected: bytes) -> None:
    assert folded(content) == expected


def test_lines_are_given_as_soon_as_they_are_whole() -> None:
    folding = Folding()
    assert folding.feed(b"one\ntwo") == b"one\n"
    assert folding.feed(b" and a half\n") == b"two and a half\n"
    assert folding.feed(b"up\nand down\n\x1b[1A") == b"up\nand down\n"
    assert folding.feed(b"and up\n") == b""
    assert folding.feed(b"again\n") == b"and up\n"
    assert folding.feed(b"later\nand\n") == b"again\nlater\n"
    assert folding.close() == b"and\n"


def terminal() -> tuple[Console, io.StringIO]:
    shown = io.StringIO()
    return Console(file=shown, force_terminal=True, width=60), shown


def test_a_bar_of_rich_is_one_line() -> None:
    console, shown = terminal()
    with Progress(console=console, auto_refresh=False) as progress:
        task = progress.add_task("training", total=100)
        for step in range(100):
            progress.advance(task)
            progress.refresh()
            if step % 50 == 0:
                progress.console.print(f"a note at {step}")
    lines = folded(shown.getvalue().encode()).decode().splitlines()
    assert [line for line in lines if "note" in line] == ["a note at 0", "a note at 50"]
    assert len(lines) == 3
    assert "100%" in lines[-1]


def test_several_bars_of_rich_are_as_many_lines() -> None:
    console, shown = terminal()
    with Live(console=console, auto_refresh=False) as live:
        for step in range(100):
            live.update(Text("\n".join(f"bar {bar}: {step}" for bar in range(4))), refresh=True)
            if step == 50:
                console.print("a note")
    first = b"".join(b"bar %d: 0\n" % bar for bar in range(3))
    last = b"".join(b"bar %d: 99\n" % bar for bar in range(4))
    assert folded(shown.getvalue().encode()) == first + b"a note\n" + last


def test_bars_of_tqdm_are_one_line_each() -> None:
    content = b"".join(b"\router %d\n\rinner %d\x1b[A" % (step, step) for step in range(50))
    assert folded(content + b"\n\n") == b"outer 0\nouter 49\ninner 49\n"


def test_a_line_without_an_end_is_bounded() -> None:
    folding = Folding()
    for _ in range(100):
        assert folding.feed(b"x" * 10_000) == b""
    assert len(folding.close()) == 64 * 1024 + 1


def test_unfinished_codes_cost_no_time() -> None:
    assert len(folded(b"\x1b]" * 100_000 + b"\n")) < 300_000
