"""What a terminal would show in the end: text without its escape codes, of lines written over only the last."""

import re

_LONGEST_ROW = 64 * 1024
_MOST_ROWS = 64
_TOKEN = re.compile(
    rb"(?P<text>[^\x00-\x08\x0a-\x1f\x7f]+)"
    rb"|\x1b\[(?P<values>[0-9;?]*)[ -/]*(?P<command>[@-~])"
    rb"|\x1b[\]P^_X][^\x07\x1b]{0,4096}(?:\x07|\x1b\\)"
    rb"|\x1b[ -/]*[0-~]"
    rb"|(?P<control>[\x00-\x1f\x7f])",
    re.DOTALL,
)
_UNFINISHED = re.compile(rb"\x1b(?:\[[0-9;?]*[ -/]*|[\]P^_X][^\x07\x1b]{0,4096}\x1b?|[ -/]*)?\Z", re.DOTALL)


class Folding:
    """A stream of bytes as it would look on a terminal that is never scrolled back.

    A line that is begun anew by a carriage return counts only in its last form. Once the stream has gone up by n
    lines, as bars of progress of several lines do, the last n lines wait until they cannot be written over any more;
    those of the first time have been given away by then.

    Example:
        >>> folding = Folding()
        >>> folding.feed(b"epoch 1\\r")
        b''
        >>> folding.feed(b"epoch 2\\ndone\\n")
        b'epoch 2\\ndone\\n'
    """

    def __init__(self) -> None:
        self._rows = [bytearray()]
        self._at = 0
        self._is_at_start = False
        self._held = 0
        self._rest = b""
        self._settled = bytearray()

    def feed(self, content: bytes) -> bytes:
        """Take some bytes; the lines that will not change any more."""
        content = self._rest + content
        unfinished = _UNFINISHED.search(content)
        self._rest = unfinished[0] if unfinished else b""
        for token in _TOKEN.finditer(content, 0, len(content) - len(self._rest)):
            if token["text"] is not None:
                self._write(token["text"])
            elif token["command"] is not None:
                self._obey(token["command"], token["values"])
            elif token["control"] == b"\n":
                self._down()
            elif token["control"] == b"\r":
                self._is_at_start = True
        settled, self._settled = bytes(self._settled), bytearray()
        return settled

    def close(self) -> bytes:
        """The lines that were waiting, with an end even to one that has none."""
        while self._rows and not self._rows[-1]:
            self._rows.pop()
        lines = b"".join(bytes(row) + b"\n" for row in self._rows)
        self._rows, self._at, self._is_at_start, self._rest = [bytearray()], 0, False, b""
        return lines

    def _write(self, text: bytes) -> None:
        row = self._rows[self._at]
        if self._is_at_start:
            row.clear()
            self._is_at_start = False
        row += text[: max(0, _LONGEST_ROW - len(row))]

    def _down(self) -> None:
        self._at += 1
        self._is_at_start = self._at < len(self._rows)
        if not self._is_at_start:
            self._rows.append(bytearray())
        count = min(self._at, max(0, len(self._rows) - 1 - self._held))
        for row in self._rows[:count]:
            self._settled += row + b"\n"
        del self._rows[:count]
        self._at -= count

    def _obey(self, command: bytes, values: bytes) -> None:
        count = int(values) if values.isdigit() else 1
        if command in (b"A", b"F"):
            self._at -= min(count, _MOST_ROWS)
            # what was given away already is written anew
            for _ in range(min(-self._at, _MOST_ROWS - len(self._rows))):
                self._rows.insert(0, bytearray())
                self._at += 1
            self._at = max(0, self._at)
            self._held = max(self._held, len(self._rows) - 1 - self._at)
            self._is_at_start = True
        elif command in (b"B", b"E"):
            self._at = min(self._at + count, len(self._rows) - 1)
            self._is_at_start = True
        elif command == b"K" and (values == b"2" or self._is_at_start):
            self._rows[self._at].clear()
        elif command == b"J" and values in (b"", b"0"):
            del self._rows[self._at + 1 :]


__all__ = ["Folding"]
