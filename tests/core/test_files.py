"""Files that rows name: nothing outside the root is opened, nothing is fetched, nothing can be exchanged in between."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from modalign.content import Part
from modalign.errors import DataError
from modalign.files import File, components, open_beneath

SECRET = b"secret"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with files to be read; beside and above it lies what must not be."""
    found = tmp_path / "root"
    (found / "folder" / "deep").mkdir(parents=True)
    (found / "file.bin").write_bytes(b"content")
    (found / "folder" / "deep" / "file.bin").write_bytes(b"deep")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside.bin").write_bytes(SECRET)
    (tmp_path / "outside" / "file.bin").write_bytes(SECRET)
    (found / "link.bin").symlink_to(tmp_path / "outside.bin")
    (found / "inner.bin").symlink_to("file.bin")
    (found / "dangling.bin").symlink_to("nothing")
    (found / "loop.bin").symlink_to("loop.bin")
    (found / "linked").symlink_to(tmp_path / "outside", target_is_directory=True)
    (found / "device.bin").symlink_to("/dev/zero")
    os.mkfifo(found / "pipe")
    return found


NAMES: dict[str, tuple[str, str]] = {
    "nothing": ("", "empty"),
    "white space": (" \t", "empty"),
    "the folder above": ("..", "may not leave"),
    "a file above": ("../outside.bin", "may not leave"),
    "a way out and in again": ("folder/../../root/file.bin", "may not leave"),
    "a way up that stays inside": ("folder/../file.bin", "may not leave"),
    "a way out at the end": ("folder/..", "may not leave"),
    "an absolute path": ("/etc/passwd", "relative to the data root"),
    "two slashes": ("//etc/passwd", "relative to the data root"),
    "a home": ("~/file.bin", "relative to the data root"),
    "another's home": ("~root/file.bin", "relative to the data root"),
    "processes": ("/proc/self/environ", "relative to the data root"),
    "a descriptor": ("/dev/fd/0", "relative to the data root"),
    "a link to a file outside": ("link.bin", "links are not followed"),
    "a link to a file inside": ("inner.bin", "links are not followed"),
    "a link to nothing": ("dangling.bin", "links are not followed"),
    "a link to itself": ("loop.bin", "links are not followed"),
    "a link to a device": ("device.bin", "links are not followed"),
    "a file behind a linked folder": ("linked/file.bin", "links are not followed"),
    "a pipe": ("pipe", "no regular file"),
    "a folder": ("folder", "no regular file"),
    "a folder with a slash": ("folder/", "no path of a file"),
    "the root": (".", "no path of a file"),
    "an empty component": ("folder//deep/file.bin", "no path of a file"),
    "a file as a folder": ("file.bin/more", "cannot be opened"),
    "a missing file": ("missing.bin", "no such file"),
    "a missing folder": ("missing/file.bin", "no such file"),
    "a NUL": ("file.bin\0.png", "NUL"),
    "a name too long": ("a" * 300, "cannot be opened"),
    "half of a surrogate pair": ("\ud800.bin", "cannot be opened"),
    "http": ("http://127.0.0.1:{port}/a", "not a URL"),
    "https": ("https://127.0.0.1:{port}/a", "not a URL"),
    "http in capitals": ("HTTP://127.0.0.1:{port}/a", "not a URL"),
    "ftp": ("ftp://127.0.0.1:{port}/a", "not a URL"),
    "a file URL": ("file:///etc/passwd", "not a URL"),
    "a short file URL": ("file:file.bin", "not a URL"),
    "data": ("data:text/plain,secret", "not a URL"),
    "concat": ("concat:file.bin|/etc/passwd", "not a URL"),
    "subfile": ("subfile,,start,0,end,0,,:/etc/passwd", "no such file|not a URL"),
    "subfile with a colon": ("subfile:file.bin", "not a URL"),
    "a pipe's number": ("pipe:0", "not a URL"),
    "crypto": ("crypto+http://127.0.0.1:{port}/a", "not a URL"),
    "rtsp": ("rtsp://127.0.0.1:{port}/a", "not a URL"),
    "s3": ("s3://bucket/key", "not a URL"),
    "hf": ("hf://datasets/a/b", "not a URL"),
    "tcp": ("tcp://127.0.0.1:{port}", "not a URL"),
    "a drive": ("C:/Windows/win.ini", "not a URL"),
    "a drive with backslashes": ("C:\\Windows\\win.ini", "not a URL"),
    "a share": ("\\\\127.0.0.1\\share\\a", "relative to the data root"),
    "a share with slashes": ("//127.0.0.1/share/a", "relative to the data root"),
    "a backslash": ("folder\\deep\\file.bin", "not a backslash"),
    "a way up with backslashes": ("..\\outside.bin", "not a backslash"),
    "the console": ("CON", "for a device"),
    "a device with an ending": ("folder/nul.png", "for a device"),
    "a printer": ("LPT1", "for a device"),
    "another case": ("FILE.BIN", "no such file"),
    "another case of a folder": ("Folder/deep/file.bin", "no such file"),
}


@contextmanager
def listener() -> Iterator[tuple[int, list[object]]]:
    """The port of a server on this machine, and who connected to it."""
    hits: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                try:
                    connection, address = server.accept()
                except TimeoutError:
                    continue
                hits.append(address)
                connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1], hits
        finally:
            stop.set()
            thread.join()


def test_there_are_enough_names() -> None:
    assert len(NAMES) >= 30


@pytest.mark.parametrize("case", NAMES)
def test_a_hostile_name_is_refused_in_words(case: str, root: Path) -> None:
    name, says = NAMES[case]
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(DataError, match=says) as caught:
        File(root=root, name=name.replace("{port}", "9")).open()
    assert caught.value.fix
    assert str(caught.value).isprintable()
    assert len(os.listdir("/proc/self/fd")) == before  # no folder on the way stays open


def test_nobody_is_called(root: Path) -> None:
    with listener() as (port, hits):
        for name, _ in NAMES.values():
            with pytest.raises(DataError):
                open_beneath(root, name.replace("{port}", str(port)))
            with pytest.raises(DataError):
                assert Part(modality="blob", value=File(root=root, name=name.replace("{port}", str(port)))).digest
        assert hits == []
        with socket.create_connection(("127.0.0.1", port)):  # and it would have noticed
            while not hits:
                time.sleep(0.01)


@pytest.mark.parametrize("name", ["file.bin", "./file.bin", "folder/deep/file.bin", "folder/./deep/file.bin"])
def test_a_file_below_the_root_is_opened(name: str, root: Path) -> None:
    with File(root=root, name=name).open() as file:
        assert file.read() == (b"deep" if "deep" in name else b"content")
        assert not isinstance(file.name, str)  # a decoder that looks finds a number, not a path to open again
        assert not os.get_inheritable(file.fileno())


def test_a_hard_link_is_a_file_of_the_folder_it_lies_in(root: Path, tmp_path: Path) -> None:
    (root / "hard.bin").hardlink_to(tmp_path / "outside.bin")
    with open_beneath(root, "hard.bin") as file:
        assert file.read() == SECRET


@pytest.mark.parametrize(("name", "says"), [("link.bin", "links are not followed"), ("pipe", "no regular file")])
def test_a_hard_link_to_what_is_no_file_is_none(root: Path, name: str, says: str) -> None:
    os.link(root / name, root / "hard.bin", follow_symlinks=False)
    with pytest.raises(DataError, match=says):
        open_beneath(root, "hard.bin")


@pytest.mark.parametrize(
    "name", ["a..b", "...", "name with spaces", "ünïcode.bin", "con1", "console.txt", "-rf", "%2e%2e"]
)
def test_odd_names_that_harm_nobody_are_opened(name: str, root: Path) -> None:
    (root / name).write_bytes(b"odd")
    with open_beneath(root, name) as file:
        assert file.read() == b"odd"


def test_a_character_device_is_no_file() -> None:
    # on its own root, as tests make no devices
    with pytest.raises(DataError, match="no regular file"):
        open_beneath(Path("/dev"), "null")


def test_a_root_behind_a_link_is_the_users_own_choice(root: Path, tmp_path: Path) -> None:
    (tmp_path / "way").symlink_to(root)
    with open_beneath(tmp_path / "way", "file.bin") as file:
        assert file.read() == b"content"


def test_a_root_that_is_no_folder_is_named_as_such(root: Path) -> None:
    for wrong in (root / "missing", root / "file.bin"):
        with pytest.raises(DataError, match=r"the data root cannot be opened.*set data\.root"):
            open_beneath(wrong, "file.bin")


def test_opening_a_pipe_waits_for_nobody(root: Path) -> None:
    done = threading.Event()

    def attempt() -> None:
        with pytest.raises(DataError, match="no regular file"):
            open_beneath(root, "pipe")
        done.set()

    threading.Thread(target=attempt, daemon=True).start()
    assert done.wait(20)


@pytest.mark.parametrize("what", ["the file", "its folder"])
def test_a_link_that_is_swapped_in_while_opening_is_never_followed(what: str, root: Path, tmp_path: Path) -> None:
    # a racer exchanges the real thing with a link as fast as it can: content or an error, never the secret
    real, link = tmp_path / "real", tmp_path / "link"
    if what == "the file":
        place, name = root / "raced.bin", "raced.bin"
        real.write_bytes(b"content")
        link.symlink_to(tmp_path / "outside.bin")
    else:
        place, name = root / "raced", "raced/file.bin"
        real.mkdir()
        (real / "file.bin").write_bytes(b"content")
        link.symlink_to(tmp_path / "outside", target_is_directory=True)
    real.rename(place)
    stop = threading.Event()

    def race() -> None:
        while not stop.is_set():
            place.rename(real)
            link.rename(place)
            place.rename(link)
            real.rename(place)

    racer = threading.Thread(target=race, daemon=True)
    racer.start()
    outcomes = {"content": 0, "refused": 0}
    try:
        for turn in range(20_000):
            try:
                with open_beneath(root, name) as file:
                    found = file.read()
            except DataError:
                outcomes["refused"] += 1
            else:
                assert found == b"content"
                outcomes["content"] += 1
            if turn > 500 and min(outcomes.values()) > 20:
                break
    finally:
        stop.set()
        racer.join()
    assert outcomes["content"], "the racer never let a file be read"


@pytest.mark.parametrize("when", [0, 1, 2])
def test_a_link_swapped_in_between_two_steps_is_never_followed(
    when: int, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the same race at its worst moments: just before the root, the folder or the file is opened
    real, steps = os.open, []

    def swapped(*arguments: object, **more: object) -> int:
        if len(steps) == when:
            (root / "folder" / "deep").rename(tmp_path / "gone")
            (root / "folder" / "deep").symlink_to(tmp_path / "outside", target_is_directory=True)
        steps.append(arguments)
        return real(*arguments, **more)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(os, "open", swapped)
    with pytest.raises(DataError, match="links are not followed"):
        open_beneath(root, "folder/deep/file.bin")


def test_a_folder_that_is_open_stays_the_same_whatever_takes_its_name(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, steps = os.open, []

    def swapped(*arguments: object, **more: object) -> int:
        if len(steps) == 3:  # root, folder and deep are open; the file is next
            (root / "folder" / "deep").rename(tmp_path / "gone")
            (root / "folder" / "deep").symlink_to(tmp_path / "outside", target_is_directory=True)
        steps.append(arguments)
        return real(*arguments, **more)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(os, "open", swapped)
    with open_beneath(root, "folder/deep/file.bin") as file:
        assert file.read() == b"deep"


@pytest.mark.parametrize(("flags", "follows"), [(0, True), (os.O_NOFOLLOW, False)])
def test_the_racers_link_would_be_followed_by_an_ordinary_open(root: Path, flags: int, follows: bool) -> None:
    # what the race is about: without O_NOFOLLOW the same name gives the secret
    try:
        handle = os.open(root / "link.bin", os.O_RDONLY | flags)
    except OSError:
        assert not follows
    else:
        assert os.read(handle, 10) == SECRET
        os.close(handle)
        assert follows


def test_components_are_those_of_the_name() -> None:
    assert components("a/./b/c.bin") == ("a", "b", "c.bin")
    assert File(root=Path(), name="a/B.JPG").suffix == ".jpg"
    assert str(File(root=Path("/root"), name="a/b")) == "a/b"  # the root is nobody's business
