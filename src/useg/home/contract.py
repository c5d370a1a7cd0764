"""What every kind of home must do, as tests: subclass `StoreContract` in a test module and give it a fixture `store`.

class TestMine(StoreContract):
    @pytest.fixture
    def store(self):
        return MyStore(...)   # empty, and another one for each test
"""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from useg.errors import InputError, UsegError
from useg.home.store import Missing, Store, open_store

REFUSED = (
    *("", "/", "a/", "/a", "a//b", ".", "..", "a/..", "../a", "a/../b", "a/./b", ".a", "a/.b", "/etc/passwd"),
    *("a\0b", "a\nb", "a\\b", "a?b", "a*b", "a:b", "a|b", "a%41", "a ", "a.", " a", "-a", "a/b ", "\ud800", "e\u0301"),
    *("x" * 256, "é" * 128, "/".join("x" * 100 for _ in range(10)), "x" * 5000),
)
ALLOWED = ("a", "_", "a.b", "a-b", "a b", "Zürich/日本", "a+b=c@d,e(f)", "x" * 255, "é" * 127, "8/" * 449 + "8")
SMALL = 120


class StoreContract:
    """Tests of one kind of home; the clock may be coarse, but nothing else may be loose.

    Attributes:
        many: how many keys to write where a listing may come in pages.
        races: how often to let writers race for a key.
        writers: how many of them at once.
        clock_s: how coarse the store's clock is.
    """

    many = 1100
    races = 20
    writers = 8
    clock_s = 1.0

    def another(self, store: Store) -> Store:
        """The same home, opened once more."""
        return open_store(store.url)

    def test_what_was_put_is_got(self, store: Store) -> None:
        """Any bytes, none at all, too."""
        for number, content in enumerate((b"", b"\0", bytes(range(256)) * 300)):
            claim(store.put(f"some/key{number}", content), "the first put of a key says True")
            got = self.another(store).get(f"some/key{number}")
            claim(type(got) is bytes and got == content, "the bytes come back as they were")

    def test_the_first_put_stays(self, store: Store) -> None:
        """The second one says False and changes nothing."""
        store.put("key", b"first")
        claim(store.put("key", b"second") is False, "the second put of a key says False")
        claim(self.another(store).put("key", b"first") is False, "also for the same bytes")
        claim(store.get("key") == b"first", "the first content stays")

    def test_a_file_is_put_as_its_bytes(self, store: Store, tmp_path: Path) -> None:
        """Small, large, empty; and it is put once, like bytes."""
        for size in (0, 1000, 20 * 2**20 + 1):
            file = tmp_path / "file"
            file.write_bytes(random.Random(size).randbytes(size))
            claim(store.put(f"file{size}", file), "the first put of a key says True")
            claim(store.get(f"file{size}") == file.read_bytes(), "the bytes come back as they were")
            file.write_bytes(b"changed")
            claim(store.put(f"file{size}", file) is False, "the second put of a key says False")
        claim([entry.size for entry in store.list()] == [0, 1000, 20 * 2**20 + 1], "nothing else is listed")

    def test_pieces_are_put_as_one(self, store: Store) -> None:
        """Many of them, large and empty ones."""
        pieces = [random.Random(size).randbytes(size) for size in (3 * 2**20, 0, *range(2500), 17 * 2**20)]
        claim(store.put("key", pieces), "the first put of a key says True")
        claim(self.another(store).get("key") == b"".join(pieces), "the bytes come back one after another")
        claim(store.put("key", pieces) is False, "the second put of a key says False")
        claim(store.put("none", []) and store.get("none") == b"", "no pieces are no bytes")

    def test_ranges_are_slices(self, store: Store) -> None:
        """What lies beyond the end is left out; in `get` and in `get_ranges`."""
        content = random.Random(1).randbytes(700_000)
        store.put("key", content)
        ranges = [(0, 5), (5, 5), (699_990, 700_010), (700_000, 700_001), (800_000, 900_000), (3, 699_999), (2, 4)]
        ranges += [(start, start + 1000) for start in range(0, 690_000, 100_000)]
        for start, end in ranges:
            claim(store.get("key", start, end) == content[start:end], f"{start}:{end} of the content")
        claim(store.get("key", 17) == content[17:], "without an end, all from there on")
        claim(store.get("key", 700_000) == b"" == store.get("key", 10**9), "nothing from the end on")
        wanted = [content[start:end] for start, end in ranges]
        claim(store.get_ranges("key", ranges) == wanted, "several ranges are several slices, in the order asked for")
        claim(store.get_ranges("key", []) == [], "no ranges, no bytes")
        store.put("empty", b"")
        claim(store.get("empty", 0, 10) == b"" == store.get("empty", 3), "any range of nothing is nothing")
        for start, end in ((-1, 5), (5, 4)):
            with expected(ValueError):
                store.get("key", start, end)
            with expected(ValueError):
                store.get_ranges("key", [(start, end)])

    def test_what_is_not_there_is_missing(self, store: Store) -> None:
        """In a home with something in it and in an empty one; also where other keys go on."""
        for _ in range(2):
            for key in ("nothing", "a", "a/b/c"):
                with expected(Missing, key):
                    store.get(key)
                with expected(Missing, key):
                    store.get(key, 2, 2)
                with expected(Missing, key):
                    store.get_ranges(key, [(0, 1), (10**6, 10**6 + 1)])
                claim(store.path(key) is None, "it has no file")
            store.put("a/b", b"1")

    def test_keys_are_checked(self, store: Store) -> None:
        """The same keys are refused everywhere, before anything is done; the rest work."""
        for key in REFUSED:
            for verb in (store.get, store.delete, store.path, lambda key: store.put(key, b"")):
                with expected(InputError, "cannot be a key"):
                    verb(key)
        for prefix in ("..", "../", "/", "/etc/", "a//", "a/../", ".tmp/", "a\0"):
            with expected(InputError, "cannot be a key"):
                list(store.list(prefix))
        for key in ALLOWED:
            claim(store.put(key, key.encode()), f"{key} is a key")
            claim(store.get(key) == key.encode(), f"{key} is a key")
        claim([entry.key for entry in store.list()] == sorted(ALLOWED), "all are listed")

    def test_a_listing_is_sorted_and_complete(self, store: Store) -> None:
        """Many keys, many at once, and names that sort otherwise as folders than as keys."""
        keys = [f"many/{number * 7919 % self.many:05}" for number in range(self.many)]
        keys += ["many-more/x", "many.x", "manya/b/c/d", "manya/b-c", "other/many/x"]
        with ThreadPoolExecutor(8) as pool:
            claim(all(pool.map(lambda key: store.put(key, key.encode()), keys)), "each put says True")
        other = self.another(store)
        for prefix in ("", "m", "many", "many/", "many/0", "many/00001", "many-", "manya/b", "manya/b/", "x", "x/y/"):
            listed = list(other.list(prefix))
            claim(
                [entry.key for entry in listed] == sorted(key for key in keys if key.startswith(prefix)),
                f"all keys that begin with {prefix!r}, sorted",
            )
            claim(all(entry.size == len(entry.key) for entry in listed), "each with its size")

    def test_what_is_deleted_is_gone(self, store: Store) -> None:
        """A second time it is no error; then the key is free."""
        store.put("a/b", b"1")
        store.put("a/c", b"2")
        self.another(store).delete("a/b")
        store.delete("a/b")
        store.delete("never/there")
        store.delete("a")
        claim([entry.key for entry in store.list()] == ["a/c"], "only that one is gone")
        with expected(Missing):
            store.get("a/b")
        claim(store.put("a/b", b"3"), "the key is free again")
        claim(store.get("a/b") == b"3", "it holds what was put last")

    def test_the_clock_is_that_of_the_entries(self, store: Store) -> None:
        """What was put between two looks at the clock bears a time between them."""
        store.put("before", b"")
        first = store.time()
        store.put("key", b"")
        last = store.time()
        modified = {entry.key: entry.modified for entry in store.list()}
        claim(modified["before"] - self.clock_s <= first <= last + self.clock_s, "the clock goes on")
        claim(first - self.clock_s <= modified["key"] <= last + self.clock_s, "an entry's time is by the store's clock")
        claim(set(modified) == {"before", "key"}, "looking at the clock leaves nothing")

    def test_one_of_many_writers_wins(self, store: Store) -> None:
        """Of puts of one key at once exactly one says True, and its content is what all see."""
        stores = [store, *(self.another(store) for _ in range(self.writers - 1))]
        with ThreadPoolExecutor(self.writers) as pool:
            for key in (f"race/{number}" for number in range(self.races)):
                contents = [f"{key} by {number}".encode() * 1000 for number in range(self.writers)]
                won = list(pool.map(lambda each, content, key=key: each.put(key, content), stores, contents))
                claim(won.count(True) == 1, f"one winner, not {won.count(True)}")
                seen = {each.get(key) for each in stores}
                claim(seen == {contents[won.index(True)]}, "all see the winner's content")

    def test_a_reader_sees_all_or_nothing(self, store: Store) -> None:
        """While a large content is written, the key is missing or whole, and listed at its full size."""
        content = bytes(18 * 2**20)
        other = self.another(store)
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(store.put, "large", content)
            while not writing.done():
                claim({entry.size for entry in other.list()} <= {len(content)}, "listed only when it is whole")
                try:
                    claim(len(other.get("large", len(content) - 1)) == 1, "read only when it is whole")
                except Missing:
                    continue
            claim(writing.result(), "the first put of a key says True")

    def test_it_does_what_a_dictionary_does(self, store: Store) -> None:
        """Any verbs in any order."""
        chosen = random.Random(7)
        twin: dict[str, bytes] = {}
        for _ in range(SMALL):
            key = f"{chosen.choice('ab')}/{chosen.choice('xyz')}"
            what = chosen.randrange(4)
            if what == 0:
                content = chosen.randbytes(chosen.randrange(20))
                claim(store.put(key, content) is (key not in twin), "put says whether it wrote")
                twin.setdefault(key, content)
            elif what == 1:
                store.delete(key)
                twin.pop(key, None)
            elif what == 2 and key in twin:
                claim(store.get(key, 3, 9) == twin[key][3:9], "a range is a slice")
            else:
                prefix = key[: chosen.randrange(4)]
                wanted = sorted((key, len(content)) for key, content in twin.items() if key.startswith(prefix))
                claim([(entry.key, entry.size) for entry in store.list(prefix)] == wanted, f"the list of {prefix!r}")


def claim(holds: bool, what: str) -> None:
    """Fail a test unless something holds."""
    if not holds:
        raise AssertionError(what)


@contextmanager
def expected(kind: type[Exception], text: str = "") -> Iterator[None]:
    """Fail a test unless an error of this kind, with this text, comes, written for the user."""
    try:
        yield
    except kind as error:
        claim(text in str(error), f"{text!r} in {error}")
        claim(kind is ValueError or isinstance(error, UsegError), f"{error!r} is raised on purpose")
        return
    raise AssertionError(f"no {kind.__name__}")


__all__ = ["StoreContract"]
