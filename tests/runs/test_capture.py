import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
from blake3 import blake3
from hypothesis import example, given, settings
from hypothesis import strategies as st

from useg.errors import DamagedFile, InputError
from useg.runs.capture import own_code, user_code
from useg.runs.git import as_path, as_text, without_credentials
from useg.runs.restoring import restore_code
from useg.runs.sources import Limits, looks_secret, why_not

PRIVATE = b"-----BEGIN OPENSSH " + b"PRIVATE KEY-----\nabc\n"


class Kept(dict[str, bytes]):
    def keep(self, content: bytes) -> str:
        digest = blake3(content).hexdigest()
        self[digest] = content
        return digest


def git(folder: Path, *words: str) -> str:
    settings = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(["git", *settings, *words], cwd=folder, env=environment, capture_output=True, check=True)
    return done.stdout.decode().strip()


def write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.fixture(autouse=True)
def plain_settings(monkeypatch):
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repo"
    root.mkdir()
    git(root, "init", "-q", "-b", "main")
    write(root / "train.py", "import model\nprint(1)\n")
    write(root / "pack/model.py", "width = 8\n")
    write(root / "gone.py", "x\n" * 50)
    write(root / "tool.bin", bytes(range(256)))
    write(root / ".gitignore", "ignored*\nout/\n")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "one")
    return root


def captured(root: Path, script: str = "train.py", **options):
    kept = Kept()
    record = user_code(root / script, kept.keep, **options)
    assert record is not None
    return record, kept


def tree(folder: Path) -> dict[str, tuple[bytes, bool]]:
    found = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if ".git" in path.relative_to(folder).parts:
            continue
        if path.is_symlink():
            found[name] = (os.readlink(os.fsencode(path)), False)
        elif path.is_file():
            found[name] = (path.read_bytes(), os.access(path, os.X_OK))
    return found


def reasons(record) -> dict[str, str]:
    return {each["path"]: each["why"] for each in record["left_out"]}


def restored(record, kept, tmp_path: Path, repository: Path | None = None) -> dict[str, tuple[bytes, bool]]:
    folder = tmp_path / "again"
    shutil.rmtree(folder, ignore_errors=True)
    restore_code(record, kept.__getitem__, folder, repository)
    return tree(folder)


def test_every_kind_of_change_comes_back(repository: Path, tmp_path: Path):
    root = repository
    write(root / "train.py", "import model\nprint(2)\n")
    git(root, "add", "train.py")
    write(root / "train.py", "import model\nprint(3)\n")  # staged, then changed once more
    git(root, "mv", "pack/model.py", "pack/net.py")
    (root / "gone.py").unlink()
    write(root / "tool.bin", bytes(reversed(range(256))))
    (root / "tool.bin").chmod(0o755)
    write(root / "staged.bin", b"\0\1\2")
    git(root, "add", "staged.bin")
    write(root / "a new one.py", "new\n")
    write(root / "bin/run.sh", "#!/bin/sh\n").chmod(0o755)
    (root / "link.py").symlink_to("train.py")
    write(root / "intended.py", "i\n")
    git(root, "add", "-N", "intended.py")
    git(root, "rm", "-q", "--cached", ".gitignore")
    record, kept = captured(root)
    assert restored(record, kept, tmp_path) == tree(root)
    assert sorted(record["deleted"]) == [".gitignore", "gone.py", "pack/model.py"]
    assert record["executable"] == ["bin/run.sh"]
    assert (record["branch"], record["remote"], record["left_out"]) == ("main", None, [])
    assert b"print(3)" in kept[record["patch"]]
    again, _ = captured(tmp_path / "again")
    assert (again["commit"], again["digest"]) == (record["commit"], record["digest"])


def test_without_a_change_there_is_no_patch(repository: Path, tmp_path: Path):
    record, kept = captured(repository)
    assert (record["patch"], record["untracked"], record["deleted"], dict(kept)) == (None, {}, [], {})
    assert restored(record, kept, tmp_path) == tree(repository)


def test_what_is_never_kept(repository: Path, tmp_path: Path):
    root = repository
    refused = {
        ".env": "looks like a secret",
        "conf/.env.local": "looks like a secret",
        "server.pem": "looks like a secret",
        "id_rsa": "looks like a secret",
        "credentials.yaml": "looks like a secret",
        "my_token.py": "looks like a secret",
        "hidden.py": "looks like a secret",
        "cell.png": "an image",
        "cell.nii.gz": "an image",
        "book.ipynb": "a notebook, which may hold images",
        "model.useg": "a model",
        "rows.csv": "data",
        "something": "not known to git, and not known for source",
        "large.py": "larger than 1,048,576 bytes",
    }
    for name in refused:
        write(root / name, PRIVATE if name == "hidden.py" else b"x" * (2**20 + 1 if name == "large.py" else 9))
    write(root / "ignored.py", "x")
    write(root / "out/code.py", "x")
    write(root / "useg-home/runs/a/plan.toml", "x")
    write(root / "tokenizer.py", "kept")
    git(root, "init", "-q", str(root / "other"))
    write(root / "other/code.py", "x")
    (root / "way_out.py").symlink_to("/etc/passwd")
    os.mkfifo(root / "pipe.py")
    record, kept = captured(root)
    assert list(record["untracked"]) == ["tokenizer.py"]
    assert record["links"] == {}
    assert reasons(record) == refused | {
        "other/": "a repository of its own",
        "way_out.py": "a link that leads out",
    }
    assert not any(PRIVATE in content for content in kept.values())


def test_changes_of_known_files_are_held_to_the_same_rules(repository: Path, tmp_path: Path):
    root = repository
    for name in ("shown.png", "conf.py", "was.py", ".env"):
        write(root / name, PRIVATE if name == "was.py" else b"1\n")
    git(root, "add", "-f", "-A")
    git(root, "commit", "-qm", "two")
    write(root / "shown.png", "2\n")
    write(root / ".env", "2\n")
    write(root / "conf.py", PRIVATE)
    write(root / "was.py", "a secret was taken away\n")
    write(root / "pack/model.py", "width = 16\n")
    record, kept = captured(root)
    assert reasons(record) == {
        "shown.png": "an image",
        ".env": "looks like a secret",
        "conf.py": "looks like a secret",
        "was.py": "looks like a secret",
    }
    assert list(kept) == [record["patch"]]
    assert b"width = 16" in kept[record["patch"]]
    assert b"PRIVATE" not in kept[record["patch"]]


def test_a_huge_file_is_not_read(repository: Path):
    for name in ("huge.py", "tool.bin"):
        with (repository / name).open("wb") as file:
            file.truncate(5 * 2**30)
    started = time.monotonic()
    record, _ = captured(repository)
    assert time.monotonic() - started < 3
    assert reasons(record) == dict.fromkeys(("huge.py", "tool.bin"), "larger than 1,048,576 bytes")


def test_limits_of_all_together(repository: Path):
    for number in range(30):
        write(repository / f"n{number:02d}.py", b"x" * 100)
    record, _ = captured(repository, limits=Limits(files=10, named=3))
    assert len(record["untracked"]) == 10
    why = "more than 10 files or 16,777,216 bytes in all"
    assert record["left_out"][:2] == [{"path": "n10.py", "why": why}, {"path": "n11.py", "why": why}]
    assert record["left_out"][-1] == {"path": "*", "why": why, "more": 17}
    record, _ = captured(repository, limits=Limits(total_bytes=550))
    assert len(record["untracked"]) == 5


def test_many_untracked_files_are_quick(repository: Path):
    (repository / "many").mkdir()
    for number in range(5000):
        os.close(os.open(repository / f"many/{number}.png", os.O_CREAT))
    record, _ = captured(repository)
    assert {"path": "*", "why": "an image", "more": 4980} in record["left_out"]
    record, _ = captured(repository, limits=Limits(listed_bytes=1000))
    assert reasons(record)["*"] in ("an image", "more untracked files than are looked at")
    assert any(each["why"] == "more untracked files than are looked at" for each in record["left_out"])


def test_names_that_are_not_text(repository: Path, tmp_path: Path):
    root = os.fsencode(repository)
    for name in (b"a\nb c.py", b"\xff\xfe.py", b"100%41.py", "ü.py".encode(), b"-x.py", b":(top).py"):
        for prefix in (b"", b"k"):
            with open(os.path.join(root, prefix + name), "wb") as file:
                file.write(b"1\n")
    git(repository, "add", "--", "k*")
    record, kept = captured(repository)
    assert restored(record, kept, tmp_path) == tree(repository)
    assert "a%0Ab c.py" in record["untracked"]
    assert "%FF%FE.py" in record["untracked"]
    assert "100%2541.py" in record["untracked"]


@given(st.binary(max_size=30))
def test_paths_as_text_come_back(path: bytes):
    text = as_text(path)
    assert as_path(text) == path
    text.encode()
    assert text.isprintable() or not any(ord(sign) < 32 for sign in text)


def test_before_the_first_commit(tmp_path: Path):
    root = tmp_path / "new"
    root.mkdir()
    git(root, "init", "-q", "-b", "start")
    write(root / "train.py", "1\n")
    write(root / "staged.py", "1\n")
    git(root, "add", "staged.py")
    write(root / "staged.py", "2\n")
    record, kept = captured(root)
    assert (record["commit"], record["branch"]) == (None, "start")
    assert restored(record, kept, tmp_path) == tree(root)


def test_detached_worktree_of_a_commit_no_branch_has(repository: Path, tmp_path: Path):
    beside = tmp_path / "beside"
    git(repository, "worktree", "add", "-q", "--detach", str(beside))
    write(beside / "train.py", "worktree\n")
    git(beside, "commit", "-qam", "lost")
    write(beside / "pack/model.py", "changed\n")
    record, kept = captured(beside)
    assert (record["branch"], record["root"]) == (None, str(beside))
    expected = tree(beside)
    assert restored(record, kept, tmp_path) == expected
    git(repository, "worktree", "remove", "--force", str(beside))
    assert restored(record, kept, tmp_path, repository) == expected  # the objects are still there


def test_submodules(repository: Path, tmp_path: Path):
    inner = tmp_path / "inner"
    shutil.copytree(repository, inner)
    git(repository, "submodule", "--quiet", "add", str(inner), "lib/inner")
    git(repository, "commit", "-qm", "submodule")
    git(repository / "lib/inner", "checkout", "-q", "--detach")
    write(repository / "lib/inner/gone.py", "moved on\n")
    git(repository / "lib/inner", "commit", "-qam", "further")
    record, kept = captured(repository)
    commit = git(repository / "lib/inner", "rev-parse", "HEAD")
    assert record["submodules"] == {"lib/inner": {"commit": commit, "remote": str(inner), "changed": False}}
    assert restored(record, kept, tmp_path) == tree(repository)
    write(repository / "lib/inner/gone.py", "changed\n")
    record, _ = captured(repository)
    assert record["submodules"]["lib/inner"]["changed"]
    assert reasons(record) == {"lib/inner": "uncommitted changes inside a submodule"}


def test_nothing_that_settings_name_is_executed(repository: Path, tmp_path: Path):
    proof = tmp_path / "executed"
    command = f"touch {proof}; cat"
    for name in ("filter.x.clean", "filter.x.smudge", "filter.x.process", "diff.x.textconv", "diff.x.command"):
        git(repository, "config", name, command)
    git(repository, "config", "filter.x.required", "true")
    git(repository, "config", "diff.external", command)
    git(repository, "config", "core.fsmonitor", command)
    git(repository, "config", "core.pager", command)
    git(repository, "config", "diff.noprefix", "true")
    git(repository, "config", "diff.renames", "copies")
    git(repository, "config", "color.ui", "always")
    hooks = repository / ".git/hooks"
    for name in ("post-checkout", "post-index-change", "reference-transaction"):
        write(hooks / name, f"#!/bin/sh\ntouch {proof}\n").chmod(0o755)
    write(repository / ".git/info/attributes", "*.py filter=x diff=x\n")
    write(repository / "train.py", "changed\n")
    record, kept = captured(repository)
    assert kept[record["patch"]].startswith(b"diff --git a/train.py b/train.py\n")
    assert restored(record, kept, tmp_path) == tree(repository)
    assert not proof.exists()
    git(repository, "config", "filter.a=b.clean", command)
    record, _ = captured(repository)
    assert not record["git"]
    assert not proof.exists()


def test_variables_of_git_name_no_other_repository(repository: Path, tmp_path: Path, monkeypatch):
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_EXTERNAL_DIFF"):
        monkeypatch.setenv(name, str(tmp_path / "elsewhere"))
    write(repository / "train.py", "changed\n")
    record, kept = captured(repository)
    assert record["root"] == str(repository)
    assert record["patch"] in kept


def test_conflicts_are_kept_as_they_lie_there(repository: Path, tmp_path: Path):
    git(repository, "checkout", "-qb", "side")
    write(repository / "pack/model.py", "width = 9\n")
    git(repository, "commit", "-qam", "side")
    git(repository, "checkout", "-q", "main")
    write(repository / "pack/model.py", "width = 7\n")
    git(repository, "commit", "-qam", "main")
    with pytest.raises(subprocess.CalledProcessError):
        git(repository, "merge", "side")
    record, kept = captured(repository)
    assert restored(record, kept, tmp_path) == tree(repository)


def test_without_repository_the_script_and_what_it_imported(tmp_path: Path, monkeypatch):
    place = tmp_path / "plain"
    script = write(place / "train", "import near\n")
    for name in ("near", "unused", "my_secret"):
        write(place / f"{name}.py", f"# {name}\n")
    write(place / "venv/lib/site-packages/installed.py", "")
    for name, file in (
        ("near", "near.py"),
        ("my_secret", "my_secret.py"),
        ("inst", "venv/lib/site-packages/installed.py"),
    ):
        module = ModuleType(name)
        module.__file__ = str(place / file)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "nothing", None)
    record, kept = captured(place, "train")
    assert (record["git"], record["commit"], record["script"]) == (False, None, "train")
    assert sorted(record["untracked"]) == ["near.py", "train"]
    assert reasons(record) == {"my_secret.py": "looks like a secret"}
    assert sorted(restored(record, kept, tmp_path)) == ["near.py", "train"]
    assert record["digest"] == blake3(script.read_bytes()).hexdigest()
    assert user_code(tmp_path / "none.py", kept.keep) is None


def test_git_that_is_missing_or_refuses_is_told(repository: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    record, _ = captured(repository)
    assert list(record["untracked"]) == ["train.py"]
    assert reasons(record) == {
        str(repository): "its commit and changes are not known: the program git is not installed"
    }
    refusing = write(
        tmp_path / "git", "#!/bin/sh\necho \"fatal: detected dubious ownership in repository at 'x'\" >&2\nexit 128\n"
    )
    refusing.chmod(0o755)
    record, _ = captured(repository)
    assert "dubious ownership" in reasons(record)[str(repository)]
    write(refusing, "#!/bin/sh\nexec sleep 60\n")
    started = time.monotonic()
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin{os.pathsep}/usr/bin")
    record, _ = captured(repository, limits=Limits(seconds=0.3))
    assert time.monotonic() - started < 5
    assert "took longer than 0.3 s" in reasons(record)[str(repository)]


def test_an_ignored_script_is_had_from_where_it_lay(repository: Path, tmp_path: Path):
    write(repository / "ignored.py", "x\n")
    record, kept = captured(repository, "ignored.py")
    assert reasons(record) == {"ignored.py": "ignored by git"}
    assert "ignored.py" in restored(record, kept, tmp_path)
    write(repository / "ignored.py", "y\n")
    with pytest.raises(
        InputError, match=r"ignored.py: the script that ran, \w+, cannot be had again: .*ignored by git"
    ):
        restored(record, kept, tmp_path)
    assert not (tmp_path / "again").exists()


def test_another_script_is_noticed(repository: Path, tmp_path: Path):
    record, kept = captured(repository)
    with pytest.raises(DamagedFile, match="what was kept gives another one"):
        restored(record | {"digest": "0" * 64}, kept, tmp_path)


def test_a_commit_that_is_nowhere(repository: Path, tmp_path: Path):
    record, kept = captured(repository)
    for commit in ("1" * 40, "--upload-pack=x"):
        with pytest.raises(InputError, match=r"cannot be had|which is none"):
            restored(record | {"commit": commit}, kept, tmp_path)
        assert not (tmp_path / "again").exists()


def test_the_remote_is_asked_where_the_folder_is_gone(repository: Path, tmp_path: Path):
    far = tmp_path / "far.git"
    git(tmp_path, "clone", "-q", "--bare", str(repository), str(far))
    git(repository, "remote", "add", "upstream", str(far))
    record, kept = captured(repository)
    assert record["remote"] == str(far)
    shutil.rmtree(repository)
    assert "train.py" in restored(record, kept, tmp_path)


@pytest.mark.parametrize(
    "name", ["../x.py", "/x.py", "a/../../x.py", ".git/hooks/post-checkout", "a//b", "a/.GIT/x", "%2E%2E/x"]
)
@pytest.mark.parametrize("field", ["untracked", "links", "deleted", "submodules", "script"])
def test_paths_that_lead_out_are_refused(repository: Path, tmp_path: Path, name: str, field: str):
    record, kept = captured(repository)
    digest = kept.keep(b"x")
    value = {"untracked": {name: digest}, "links": {name: "x"}, "deleted": [name], "script": name}
    value["submodules"] = {name: {"commit": record["commit"]}}
    with pytest.raises(InputError, match="leads out"):
        restored(record | {field: value[field], "digest": digest}, kept, tmp_path)
    assert not (tmp_path / "again").exists()


def test_nothing_is_written_through_a_link(repository: Path, tmp_path: Path):
    (repository / "out").symlink_to(tmp_path / "target")
    (tmp_path / "target").mkdir()
    write(tmp_path / "target/x.py", "theirs")
    git(repository, "add", "-f", "out")
    git(repository, "commit", "-qm", "link")
    record, kept = captured(repository)
    for changes in ({"untracked": {"out/x.py": kept.keep(b"x")}}, {"deleted": ["out/x.py"]}):
        with pytest.raises(InputError, match=r"is no folder|behind a link"):
            restored(record | changes, kept, tmp_path)
    assert (tmp_path / "target/x.py").read_text() == "theirs"


def test_a_folder_with_something_in_it_is_left_alone(repository: Path, tmp_path: Path):
    record, kept = captured(repository)
    write(tmp_path / "full/x", "mine")
    with pytest.raises(InputError, match="a new or empty folder was wanted"):
        restore_code(record, kept.__getitem__, tmp_path / "full")
    assert (tmp_path / "full/x").read_text() == "mine"
    with pytest.raises(InputError, match="no code that could be had again"):
        restore_code({"version": "1", "installed": "wheel"}, kept.__getitem__, tmp_path / "new")


NAMES = st.sampled_from(["train.py", "a.py", "b.py", "a.py/c.py", "d/e.py", "d/f.sh", "g.bin", "d"])
CONTENT = st.sampled_from([b"", b"1\n", b"1\n2\n3\n", b"no newline", b"\r\n\r\n", b"\0\xff\n", b"x" * 5000])
STEP = st.tuples(
    st.sampled_from(["write", "write", "delete", "executable", "add", "link", "commit", "unstage"]), NAMES, CONTENT
)


@settings(max_examples=12)
@given(steps=st.lists(STEP, min_size=1, max_size=12))
@example(steps=[("write", "d", b"1\n"), ("commit", "d", b""), ("write", "d/e.py", b"1\n"), ("add", "d", b"")])
@example(steps=[("write", "d/e.py", b"1\n"), ("commit", "d", b""), ("write", "d", b"1\n"), ("add", "d", b"")])
@example(steps=[("write", "a.py", b"1\n"), ("commit", "d", b""), ("link", "a.py", b""), ("unstage", "b.py", b"")])
@example(steps=[("write", "a.py", b"1\n"), ("commit", "d", b""), ("unstage", "a.py", b""), ("write", "a.py", b"2")])
def test_whatever_was_done_comes_back(tmp_path_factory: pytest.TempPathFactory, steps):
    base = tmp_path_factory.mktemp("any")
    root = base / "repo"
    root.mkdir()
    git(root, "init", "-q")
    write(root / "train.py", "1\n")
    for what, name, content in steps:
        act(root, what, name, content)
    if not (root / "train.py").is_file():
        return
    record, kept = captured(root)
    expected = {name: value for name, value in tree(root).items() if name not in reasons(record)}
    found = restored(record, kept, base)
    assert {name: value for name, value in found.items() if name not in reasons(record)} == expected


def act(root: Path, what: str, name: str, content: bytes) -> None:
    path = root / name
    if what in ("add", "commit", "unstage"):
        git(root, "add", "-A")
        if what == "commit":
            git(root, "commit", "-qm", "x", "--allow-empty")
        if what == "unstage" and git(root, "ls-files", name):
            git(root, "rm", "-rq", "--cached", "--", name)
        return
    for above in (path, *path.parents):
        if above != root and root in above.parents and (above.is_symlink() or above.is_file()) and what != "executable":
            above.unlink()
    if path.is_dir() and what != "executable":
        shutil.rmtree(path)
    if what == "write":
        write(path, content)
    elif what == "link":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to("train.py")
    elif what == "executable" and path.is_file():
        path.chmod(0o755)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://me:pw@host/a.git", "https://host/a.git"),
        ("https://ghp_x@host:8443/a.git?token=1#x", "https://host:8443/a.git"),
        ("https://me:p/w@host/a.git", "https://host/a.git"),
        ("https://me:p@w@host/a.git", "https://host/a.git"),
        ("ssh://git:pw@host:22/a.git", "ssh://git@host:22/a.git"),
        ("git@host:a/b.git", "git@host:a/b.git"),
        ("https://host/a@v1.git", "https://host/a@v1.git"),
        ("https://[::1]:80/a@v1.git", "https://[::1]:80/a@v1.git"),
        ("/srv/a.git", "/srv/a.git"),
    ],
)
def test_addresses_have_no_credentials(url: str, expected: str):
    assert without_credentials(url) == expected


def test_tokens_are_seen_and_code_is_not_mistaken():
    assert looks_secret(b"key = 'AKIA" + b"ABCDEFGHIJKLMNOP'")
    assert looks_secret(b"url = ghp_" + b"a" * 36)
    assert not looks_secret(Path(__file__).read_bytes())
    assert why_not(b"src/tokenizer.py", is_new=True) is None
    assert why_not(b"secrets/x.py", is_new=True) == "looks like a secret"


def test_own_code_of_this_checkout():
    kept = Kept()
    record = own_code(kept.keep)
    assert record["version"]
    assert record["installed"] in ("wheel", "editable", "checkout")
    assert "git" not in record or all(
        name.startswith("src/") or name == "pyproject.toml" for name in record["untracked"]
    )
    assert set(record.get("untracked", {}).values()) <= set(kept)
