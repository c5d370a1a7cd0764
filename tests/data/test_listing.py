import os
import sys
from pathlib import Path

import pytest

from useg.data.listing import is_of_the_system, list_files
from useg.errors import DataError


def laid(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")


def test_files_in_natural_order_without_hidden_ones(tmp_path):
    laid(tmp_path, "b/10.png", "b/9.png", ".git/x.png", "Thumbs.db", "a.png")
    assert list_files(tmp_path).files == ("a.png", "b/9.png", "b/10.png")


def test_a_home_in_the_folder_is_passed_over_and_a_folder_in_a_home_is_read(tmp_path):
    for name in ("refs", "packs", "index", "runs/one/pictures"):
        laid(tmp_path, f"useg-home/{name}/a.png")
    laid(tmp_path, "images/a.png", "useg-home/mine/b.png")
    assert list_files(tmp_path).files == ("images/a.png",)
    assert list_files(tmp_path / "useg-home" / "mine").files == ("b.png",)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
@pytest.mark.parametrize("place", ["/proc/self", "/dev", "/sys/class"])
def test_what_the_system_shows_as_files_is_refused_at_once(place, tmp_path):
    with pytest.raises(DataError, match="shows the system as files"):
        list_files(Path(place))
    (tmp_path / "link").symlink_to(place)
    with pytest.raises(DataError, match="shows the system as files"):
        list_files(tmp_path)


def test_memory_kept_as_files_is_for_data():
    assert not is_of_the_system("/dev/shm/cells")
    assert is_of_the_system("/dev/fd")
    assert not is_of_the_system("/device")


def test_a_link_to_a_folder_above_the_root_is_a_loop(tmp_path):
    laid(tmp_path, "data/a.png")
    (tmp_path / "data" / "up").symlink_to(tmp_path)
    with pytest.raises(DataError, match="leads back"):
        list_files(tmp_path / "data")


def test_links_that_double_at_every_level_come_to_an_end(tmp_path):
    levels = 20
    for level in range(levels):
        folder = tmp_path / "pool" / f"{level}"
        folder.mkdir(parents=True)
        for name in ("l", "r"):
            (folder / name).symlink_to(tmp_path / "pool" / f"{level + 1}")
    laid(tmp_path, f"pool/{levels}/a.png")
    (tmp_path / "data").symlink_to(tmp_path / "pool" / "0")
    with pytest.raises(DataError, match="the first 100 places") as caught:
        list_files(tmp_path / "data")
    assert "more than 100 times" in caught.value.problems[0].what


def test_folders_without_end_are_an_error(tmp_path):
    deep = tmp_path / "/".join(["d"] * 300)
    deep.mkdir(parents=True)
    with pytest.raises(DataError, match="folders lie in each other"):
        list_files(tmp_path)


def test_pipes_and_sockets_are_passed_over(tmp_path):
    laid(tmp_path, "a.png")
    os.mkfifo(tmp_path / "b.png")
    assert list_files(tmp_path).files == ("a.png",)
