"""Made-up samples for the tests of manifests and queries."""

from blake3 import blake3
from hypothesis import strategies as st

from useg.data.manifest import FileRef, Row

ROLES = ("image", "label", "objects", "region", "weight")


def digest(name: str) -> str:
    return blake3(name.encode()).hexdigest()


def file(path: str, content: str = "", part: str = "", size: int = 7) -> FileRef:
    return FileRef(path, part, digest(content or path), size)


def sample(key: str, group: str | None = None, split: str | None = None, label: str = "", **metadata) -> Row:
    files = {"image": (file(f"images/{key}.png"),), "label": (file(f"masks/{key}.png", label),)}
    return Row(key, files, group, split, metadata)


def patients(count: int) -> list[Row]:
    """Three samples a patient, stains in turn; some samples are nobody's."""
    return [
        sample(
            f"s{index:04}",
            group=f"p{index // 3}" if index % 7 else None,
            split=(None, "train", "test")[index % 3],
            stain=("HE", "IHC", None)[index % 3],
            age=index % 90,
            dose=index / 8,
            good=bool(index % 2),
        )
        for index in range(count)
    ]


texts = st.text(st.sampled_from("ab\"\\'\x00\x01\n\x7fé\u2028日𝄞 .#/"), max_size=4)
values = st.one_of(
    st.none(),
    texts,
    st.integers(-5, 5),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
)
refs = st.builds(FileRef, texts, texts, st.sampled_from([digest(name) for name in "abcd"]), st.integers(0, 2**62))
rows = st.builds(
    Row,
    st.text(st.sampled_from('ab"é日𝄞\x00'), min_size=1, max_size=3),
    st.dictionaries(st.sampled_from(ROLES), st.lists(refs, max_size=3).map(tuple), max_size=3),
    st.none() | texts,
    st.none() | texts,
    st.dictionaries(st.sampled_from(["a", "A", 'q"', "é", "pixels.cell", "n"]), values, max_size=4),
    st.none() | st.lists(st.integers(1, 9), max_size=3).map(tuple),
    st.none() | texts,
)
row_lists = st.lists(rows, max_size=8, unique_by=lambda row: row.key)
