import os

from blake3 import blake3

from useg.data.known_files import KnownFiles, digest_file, state_of


def write(path, content, age_s=100):
    path.write_bytes(content)
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - age_s * 10**9))
    return path.stat()


def older(status, seconds=100):
    """The status of a file that was last touched some time ago; its change time cannot be set."""

    class Status:
        st_size, st_ino = status.st_size, status.st_ino
        st_mtime_ns, st_ctime_ns = status.st_mtime_ns, status.st_ctime_ns - seconds * 10**9

    return Status


def test_a_digest_is_known_again_while_nothing_changed(tmp_path):
    status = older(write(tmp_path / "a", b"abc"))
    known = KnownFiles(tmp_path, store=tmp_path / "store")
    assert known.digest("a", status) is None
    known.remember("a", status, *digest_file(tmp_path / "a"))
    known.save()
    again = KnownFiles(tmp_path, store=tmp_path / "store")
    assert again.digest("a", status) == (blake3(b"abc").hexdigest(), 3)
    assert again.digest("b", status) is None
    for name in ("st_size", "st_ino", "st_mtime_ns", "st_ctime_ns"):
        changed = type("Changed", (status,), {name: getattr(status, name) + 1})
        assert again.digest("a", changed) is None, name


def test_other_folders_and_other_treatments_are_kept_apart(tmp_path):
    status = older(write(tmp_path / "a", b"abc"))
    known = KnownFiles(tmp_path, store=tmp_path / "store")
    known.remember("a", status, "d", 3)
    known.save()
    assert KnownFiles(tmp_path / "other", store=tmp_path / "store").digest("a", status) is None
    assert KnownFiles(tmp_path, treatment="strip", store=tmp_path / "store").digest("a", status) is None


def test_a_file_changed_just_now_is_read_again(tmp_path):
    status = write(tmp_path / "a", b"abc", age_s=0)
    known = KnownFiles(tmp_path, store=tmp_path / "store")
    known.remember("a", status, "d", 3)
    assert known.digest("a", status) is None


def test_a_damaged_or_unwritable_cache_costs_time_only(tmp_path):
    status = older(write(tmp_path / "a", b"abc"))
    known = KnownFiles(tmp_path, store=tmp_path / "store")
    known.remember("a", status, "d", 3)
    known.save()
    (kept,) = (tmp_path / "store").iterdir()
    kept.write_bytes(kept.read_bytes()[:-5])
    assert KnownFiles(tmp_path, store=tmp_path / "store").digest("a", status) is None
    (tmp_path / "file").write_bytes(b"")
    blocked = KnownFiles(tmp_path, store=tmp_path / "file" / "below")
    blocked.remember("a", status, "d", 3)
    blocked.save()


def test_a_folders_state_tells_every_change(tmp_path, monkeypatch):
    root = tmp_path / "data"
    (root / "below").mkdir(parents=True)
    (root / "below" / "a.png").write_bytes(b"abc")
    assert state_of(root) == "", "what was changed just now might be changed again unseen"
    monkeypatch.setattr("useg.data.known_files._SETTLED_NS", 0)
    states = [state_of(root)]
    assert state_of(root) == states[0]
    (root / "below" / "a.png").write_bytes(b"abd")
    states.append(state_of(root))
    (root / "below" / "a.png").rename(root / "below" / "b.png")
    states.append(state_of(root))
    (root / "notes.txt").write_bytes(b"")
    states.append(state_of(root))
    assert len({*states}) == 4
    (root / "link").symlink_to("notes.txt")
    assert state_of(root) == "", "what a link leads to may change unseen"
