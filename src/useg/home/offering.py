"""What this machine's cache gives to machines that work on the same data; see `peers`.

    POST /v1/objects   a line each, its digest and the suffix that its file has here, too; the answer is each
                       object's digest, its length in 8 bytes, and its bytes

What is asked for and not here is fetched from the home first, for the one who asks and for this machine.
"""

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from shutil import copyfileobj
from threading import Thread

from typing_extensions import override

from useg.errors import UsegError
from useg.home.fetching import Fetcher
from useg.home.peers import HEAD_BYTES, Wanted

_WANTED = re.compile(r"([0-9a-f]{64})((?:\.[^/\0\n]{1,40})?)")
_MOST_ASKED = 10**7
_TOGETHER = 64
_STALLED_S = 60.0


@contextmanager
def offered(fetcher: Fetcher, host: str, token: str) -> Iterator[str]:
    """Meanwhile, other machines get objects of a home at the address that is given.

    Args:
        fetcher: of the home, into this machine's cache. host: where to listen, on any port that is free.
        token: what others have to show.
    """

    class Answer(_Answer):
        pass

    Answer.fetcher, Answer.token = fetcher, token
    with _Server((host, 0), Answer) as server:
        Thread(target=server.serve_forever, name="offering", daemon=True).start()
        try:
            yield f"http://{host}:{server.server_port}"
        finally:
            server.shutdown()


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


class _Answer(BaseHTTPRequestHandler):
    fetcher: Fetcher
    token: str
    protocol_version = "HTTP/1.1"
    timeout = _STALLED_S

    def do_POST(self) -> None:
        """Give what is asked for."""
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        size = self.headers.get("Content-Length", "")
        if not secrets.compare_digest(given.encode(), self.token.encode()):
            self._refuse(401)
        elif self.path != "/v1/objects" or not size.isdecimal() or int(size) > _MOST_ASKED:
            self._refuse(400)
        else:
            lines = self.rfile.read(int(size)).decode(errors="replace").split("\n")
            wanted = [match.groups() for line in lines if (match := _WANTED.fullmatch(line))]
            with suppress(OSError):  # who asked has gone
                self._give([(digest, suffix) for digest, suffix in wanted])

    def _give(self, wanted: list[Wanted]) -> None:
        try:
            lengths = [self.fetcher.objects.length(digest) for digest, _ in wanted]
        except UsegError:  # the home, when it is asked, tells why
            self._refuse(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(sum(lengths) + HEAD_BYTES * len(lengths)))
        self.end_headers()
        self.close_connection = True  # until all is given: what breaks off here must be seen to have broken off
        for start in range(0, len(wanted), _TOGETHER):
            lot = wanted[start : start + _TOGETHER]
            try:
                with self.fetcher.holding(lot) as files:
                    for (digest, _), length, file in zip(lot, lengths[start:], files, strict=False):
                        self.wfile.write(bytes.fromhex(digest) + length.to_bytes(8))
                        with file.open("rb") as content:
                            copyfileobj(content, self.wfile, 2**20)
            except UsegError:
                return
        self.close_connection = False

    def _refuse(self, status: int) -> None:
        self.close_connection = True
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    @override
    def log_message(self, *words: object) -> None:
        """Say nothing."""


__all__ = ["offered"]
