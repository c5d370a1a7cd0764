import numpy as np
import pytest
import zstandard
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from useg.errors import DamagedFile, InputError
from useg.home.index import Index
from useg.home.packs import (
    CHUNKS,
    FOOTER_BYTES,
    PACKED,
    PLACED,
    RAW,
    ZSTD,
    PackBuilder,
    chunk_list,
    chunks_of,
    decode_segment,
    encode_segment,
    expand,
    read_footer,
    shrink,
    texts_of,
    words_of,
)


def digest(number):
    return blake3(number.to_bytes(4, "little")).digest()


def pack(count=5):
    builder = PackBuilder()
    for number in range(count):
        builder.add(digest(number), RAW, bytes([number]) * number, number)
    pieces, rows = builder.seal()
    return b"".join(pieces), rows


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=5))
def test_digests_as_text_and_numbers(digests):
    texts = [each.hex() for each in digests]
    assert texts_of(words_of(texts)) == texts


@pytest.mark.parametrize("wrong", [["x" * 64], ["a" * 63, "a" * 65], ["a" * 62 + " a"], [""], ["é" * 64]])
def test_what_is_no_digest_is_refused(wrong):
    with pytest.raises(InputError, match="64 hexadecimal digits were wanted"):
        words_of(wrong)


@given(st.binary(max_size=300), st.integers(0, 1000))
def test_what_is_stored_comes_back(content, repeated):
    content = content * (repeated + 1)
    kind, stored = shrink(content)
    assert expand(kind, stored, len(content)) == content
    assert len(stored) <= len(content)


def test_only_what_becomes_smaller_is_compressed():
    noise = blake3(b"noise").digest(200_000)
    assert shrink(noise) == (RAW, noise)
    assert shrink(noise[:100])[0] == RAW
    assert shrink(bytes(200_000))[0] == ZSTD
    assert shrink(b"") == (RAW, b"")


def test_a_frame_that_claims_another_size_is_not_given_the_memory():
    frame = zstandard.compress(bytes(10_000))
    for stored, length in ((frame, 9_999), (frame[:-3], 10_000), (b"no frame", 8), (b"", 0)):
        with pytest.raises(ValueError, match=r"."):
            expand(ZSTD, stored, length)


def test_chunk_lists():
    chunks = [(digest(number), 1000 + number) for number in range(3)]
    words, lengths = chunks_of(chunk_list(chunks))
    assert texts_of(words) == [each.hex() for each, _ in chunks]
    assert lengths.tolist() == [1000, 1001, 1002]
    with pytest.raises(ValueError, match="no list of chunks"):
        chunks_of(b"12345")


def test_a_pack_says_what_is_in_it():
    content, rows = pack()
    assert (read_footer("name", content, len(content)) == rows).all()
    assert len(content) == 10 + 5 * PACKED.itemsize + FOOTER_BYTES
    for row, number in zip(rows, range(5), strict=True):
        assert content[int(row["offset"]) :][: int(row["stored"])] == bytes([number]) * number


def test_a_footer_read_with_too_few_bytes_says_how_many_it_needs():
    content, rows = pack(50)
    needed = read_footer("name", content[-40:], len(content))
    assert isinstance(needed, int)
    assert (read_footer("name", content[-needed:], len(content)) == rows).all()


def test_every_flipped_bit_of_a_footer_is_noticed():
    content, _ = pack(2)
    name = blake3(content).hexdigest()
    for place in range(1, len(content) - 9):
        wrong = bytearray(content)
        wrong[place] ^= 4
        try:
            rows = read_footer(name, bytes(wrong), len(wrong))
        except DamagedFile:
            continue
        assert isinstance(rows, int), "a longer footer than there is was asked for"
    for length in range(len(content) - 1):
        # without its last bytes it is taken for one object of that digest, which it then turns out not to be
        assert texts_of(read_footer(name, content[:length], length)["digest"]) == [name]


def test_a_pack_of_the_future():
    content, _ = pack()
    with pytest.raises(InputError, match="newer useg"):
        read_footer("name", content[:-1] + b"2", len(content))
    segment = b"USEGINDX2" + bytes(4)
    with pytest.raises(InputError, match="newer useg"):
        decode_segment(blake3(segment).hexdigest(), segment)


def test_two_packs_of_the_same_objects_have_two_names():
    assert blake3(pack()[0]).digest() != blake3(pack()[0]).digest()


def placed(digests, packs, offsets):
    rows = np.zeros(len(digests), PLACED)
    rows["digest"] = words_of([each.hex() for each in digests])
    rows["pack"], rows["offset"], rows["stored"] = packs, offsets, 1
    return rows


def test_a_segment_comes_back_and_a_damaged_one_does_not():
    rows = placed([digest(1), digest(2)], [1, 0], [10, 20])
    names = [digest(8).hex(), digest(9).hex()]
    content = encode_segment(names, rows)
    name = blake3(content).hexdigest()
    packs, read = decode_segment(name, content)
    assert packs == names
    assert (read == rows).all()
    with pytest.raises(DamagedFile, match=f"index/{name}"):
        decode_segment(name, content[:-1])


@given(st.lists(st.lists(st.tuples(st.integers(0, 15), st.integers(0, 3)), max_size=12), max_size=4), st.booleans())
def test_the_table_finds_what_a_dictionary_finds(segments, is_colliding):
    """Newer segments before older ones; digests that begin alike, too."""
    names = [digest(100 + number).hex() for number in range(4)]

    def key(number):
        return (bytes(8) if is_colliding else b"") + digest(number)[: 24 if is_colliding else 32]

    index, twin = Index(), {}
    for offset, segment in enumerate(segments):
        rows = placed([key(number) for number, _ in segment], [pack for _, pack in segment], offset)
        index = index.with_segments([(names, rows)])
        for number, pack in reversed(segment):
            twin[number] = (names[pack], offset)
    wanted = words_of([key(number).hex() for number in range(16)])
    places = index.find(wanted, np.ones(len(index), bool))
    assert (index.holds(wanted) == (places >= 0)).all()
    found = {n: (index.pack(p), int(index.rows["offset"][p])) for n, p in enumerate(places) if p >= 0}
    assert found == twin
    assert sorted(index.all_places(wanted)) == list(range(len(index)))


def test_kinds_are_part_of_the_format():
    assert (RAW, ZSTD, CHUNKS) == (0, 1, 2)
    assert PACKED.itemsize == 57
    assert PLACED.itemsize == 61
