import pytest
from hypothesis import given
from hypothesis import strategies as st

from useg.errors import DamagedFile, InputError
from useg.home.store import Memory
from useg.web.access import ALIVE_S, Forbidden, check_delete, check_put, check_ref, named_digest

DIGEST = "0123456789abcdef" * 4
ALL = [
    f"packs/{DIGEST}", f"index/{DIGEST}", "refs/data/a/branches/main/00000001", "runs/r/record/00000001",
    "runs/r/model.useg", "condemned/00000001", f"tombstones/{DIGEST}", "machines/a.json", "other",
]  # fmt: skip


def allows(check, *arguments) -> bool:
    try:
        check(*arguments)
    except Forbidden:
        return False
    return True


def test_who_may_put_what() -> None:
    assert [key for key in ALL if allows(check_put, "reader", key)] == []
    assert [key for key in ALL if allows(check_put, "writer", key)] == ALL[:5]
    assert [key for key in ALL if allows(check_put, "admin", key)] == ALL


def test_who_may_delete_what() -> None:
    store = Memory()
    assert [key for key in ALL if allows(check_delete, "reader", store, key)] == []
    assert [key for key in ALL if allows(check_delete, "writer", store, key)] == []
    assert [key for key in ALL if allows(check_delete, "admin", store, key)] == ALL


def test_a_living_run_replaces_its_own_files_but_neither_record_nor_claim() -> None:
    now = 0.0
    store = Memory(clock=lambda: now)
    for number in range(3):
        store.put(f"runs/r/attempts/1/lease/{number:08}", b"{}")
    store.put("runs/other/attempts/1/lease/00000000", b"{}")
    free = ["runs/r/attempts/1/lease/00000001", "runs/r/attempts/1/journal/000000000012.jsonl", "runs/r/scores.json"]
    kept = ["runs/r/record/00000001", "runs/r/record.json", "runs/r/attempts/1/lease/00000000", f"packs/{DIGEST}"]
    kept += ["runs/r/folds/0/attempts/2/lease/00000000", "runs/x/scores.json", "refs/a/00000001"]
    assert all(allows(check_delete, "writer", store, key) for key in free)
    assert not any(allows(check_delete, "writer", store, key) for key in kept)
    now = ALIVE_S + 1
    store.put("runs/other/attempts/1/lease/00000001", b"{}")
    assert not any(allows(check_delete, "writer", store, key) for key in free + kept)


def test_the_log_of_a_name_has_no_gap_and_only_an_admin_takes_a_name_away() -> None:
    store = Memory()
    entry = f'{{"to": "{DIGEST}"}}'.encode()
    check_ref("writer", store, "refs/a/00000001", entry)
    with pytest.raises(InputError, match="the entry before it is not there"):
        check_ref("writer", store, "refs/a/00000002", entry)
    store.put("refs/a/00000001", entry)
    check_ref("writer", store, "refs/a/00000002", entry)
    with pytest.raises(Forbidden, match="a writer cannot take a name away"):
        check_ref("writer", store, "refs/a/00000002", b'{"to": null}')
    check_ref("admin", store, "refs/a/00000002", b'{"to": null}')
    for key, content in (
        ("refs/a", entry), ("refs/00000001", entry), ("refs/a/1", entry), ("refs/a/00000000", entry),
        ("refs/a/00000002", b""), ("refs/a/00000002", b"[]"), ("refs/a/00000002", b"{}"),
        ("refs/a/00000002", b'{"to": "main"}'), ("refs/a/00000002", b'{"to": 3}'),
    ):  # fmt: skip
        with pytest.raises(DamagedFile, match="no entry of a name"):
            check_ref("admin", store, key, content)


@given(st.sampled_from(["packs/", "index/", "refs/", "runs/", "a/packs/"]), st.text("0123456789abcdef/x", max_size=70))
def test_what_a_key_says_of_its_content(prefix: str, rest: str) -> None:
    is_digest = len(rest) == 64 and not {*rest} - {*"0123456789abcdef"}
    if prefix in ("packs/", "index/") and not is_digest:
        with pytest.raises(InputError, match="named by a digest"):
            named_digest(prefix + rest)
    else:
        assert named_digest(prefix + rest) == (rest if prefix in ("packs/", "index/") else None)


def test_a_digest_in_the_place_of_one() -> None:
    assert named_digest(f"packs/{DIGEST}") == DIGEST
