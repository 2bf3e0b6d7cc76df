"""Hostile and broken media as rows beside real ones, from the file to a step of training, and from the command line."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

import modalign
from modalign.cli import main
from modalign.data import read
from modalign.data.prepared import Prepared, prepare
from modalign.errors import DataError
from modalign.objectives import DPO
from modalign.roles import Preparer
from modalign.training import Trainer
from modalign_audio import samples as sounds
from modalign_audio.testing import tiny_audio
from modalign_image.samples import broken as pictures_broken
from modalign_image.samples import encode, photo
from modalign_image.testing import tiny_vision
from modalign_text.testing import tiny_model
from modalign_video import samples as clips
from modalign_video.testing import numbered_clip, tiny_video

MEDIA: dict[str, dict[str, object]] = {"video": {"frames": 4}}


def pictures(kind: str) -> bytes:
    return encode(photo(), kind)


#: names of files that are none: the name and words of its error
PATHS: dict[str, tuple[str, str]] = {
    "missing": ("gone.png", "no such file"),
    "missing in a folder": ("gone/a.png", "no such file"),
    "up": ("../outside.png", "may not leave the data root"),
    "up from within": ("inner/../../outside.png", "may not leave the data root"),
    "a sibling of the same beginning": ("../set-2/a.png", "may not leave the data root"),
    "absolute": ("OUTSIDE", "must be relative"),
    "two slashes": ("//etc/hostname", "must be relative"),
    "home": ("~/a.png", "must be relative"),
    "a backslash": ("inner\\good.png", "not a backslash"),
    "a share": ("\\\\host\\share\\a.png", "must be relative"),
    "a nul": ("good.png\0.txt", "holds a NUL"),
    "empty": ("", "is empty"),
    "blank": ("  ", "is empty"),
    "the root": (".", "no path of a file"),
    "a folder": ("inner", "no regular file"),
    "a slash at the end": ("good.png/", "no path of a file"),
    "a file as a folder": ("good.png/a.png", "cannot be opened"),
    "a link to a file": ("link.png", "links are not followed"),
    "a link to a folder": ("linked/outside.png", "links are not followed"),
    "a link within": ("loop.png", "links are not followed"),
    "a pipe": ("pipe.png", "no regular file"),
    "a socket": ("socket.png", "cannot be opened|no regular file"),
    "a device": ("/dev/zero", "must be relative"),
    "the process": ("/proc/self/environ", "must be relative"),
    "con": ("CON", "for a device"),
    "con with a suffix": ("inner/con.png", "for a device"),
    "a name too long": ("a" * 300, "cannot be opened"),
    "another case": ("GOOD.png", "no such file"),
    "another case of a suffix": ("good.PNG", "no such file"),
    "another case of a folder": ("Inner/good.png", "no such file"),
    "another form of a letter": ("cafe\u0301.png", "no such file"),  # the file's name has it as one character
    "a hard link to a link": ("hard-link.png", "links are not followed"),
    "a hard link to a pipe": ("hard-pipe.png", "no regular file"),
}
ADDRESSES = (
    *("http", "https", "HTTP", "ftp", "sftp", "rtsp", "rtmp", "tcp", "udp", "tls", "s3", "gs", "hf", "smb", "gopher"),
    *("unix", "jar", "ipfs"),
)
URLS = (
    *(f"{scheme}://LISTENER/a.png" for scheme in ADDRESSES),
    *("file:///etc/hostname", "file:good.png", "data:image/png;base64,iVBORw0KGgo=", "pipe:0", "fd:0"),
    *("concat:good.png|good.png", "subfile,,start,0,end,9,,:good.png", "cache:http://LISTENER/a", "crypto:good.png"),
    *("async:http://LISTENER/a", "javascript:alert(1)", "C:/a.png"),
)

WHAT = {"type": "text", "text": "what is it?"}


def row(name: str, *content: Mapping[str, object], **columns: object) -> dict[str, object]:
    """A pair whose prompt shows something."""
    answers = {
        side: [{"role": "assistant", "content": words}] for side, words in (("chosen", "a dog"), ("rejected", "no"))
    }
    return {"id": name, "prompt": [{"role": "user", "content": [*content, WHAT]}], **answers, **columns}


def medium(kind: str, name: str, **facts: object) -> dict[str, object]:
    return {"type": kind, kind: name, **facts}


GOOD_FILES: dict[str, bytes] = {
    "good.png": pictures("PNG"),
    "good.jpg": pictures("JPEG"),
    "good.webp": pictures("WEBP"),
    "good.wav": sounds.encode("WAV", "PCM_16"),
    "good.flac": sounds.encode("FLAC", "PCM_16"),
    "good.mp4": numbered_clip(12),
    **{f"{mode.replace(';', '')}.png": encode(Image.new(mode, (20, 12), 1), "PNG") for mode in ("1", "L", "LA", "P")},
    "16.png": encode(Image.fromarray(np.full((12, 20), 40_000, np.uint16)), "PNG"),
    "alpha.png": encode(photo().convert("RGBA"), "PNG"),
    "cmyk.jpg": encode(photo().convert("CMYK"), "JPEG"),
    "animated.gif": encode(photo(), "GIF", save_all=True, append_images=[photo(seed=1)]),
    "8.wav": sounds.encode("WAV", "PCM_U8"),
    "24.wav": sounds.encode("WAV", "PCM_24"),
    "float.wav": sounds.encode("WAV", "FLOAT"),
    "192k.wav": sounds.encode("WAV", "PCM_16", rate=192_000),
    "backwards.mkv": numbered_clip(6, container="matroska", codec="mpeg4", ticks=[-100, 0, 300, 200, 200, 900]),
    "turned.mp4": numbered_clip(6, turned=90),
}


def kind_of(file: str) -> str:
    return {"wav": "audio", "flac": "audio", "mp4": "video", "mkv": "video"}.get(file.rpartition(".")[2], "image")


GOOD = [row(f"good {name}", medium(kind_of(name), name)) for name in GOOD_FILES]
GOOD += [
    row("a hard link", medium("image", "hard.png")),  # it leads out of the root, and no path tells
    row("a letter of one character", medium("image", "caf\u00e9.png")),
]
GOOD += [
    row(
        f"sha256 of an item: {name}",
        **{f"{kind_of(name)}s": [{"path": name, "sha256": hashlib.sha256(GOOD_FILES[name]).hexdigest()}]},
    )
    for name in ("good.png", "good.wav", "good.mp4")
]
SLOT = {"type": "image"}

#: rows that do not fit their media: the row, its field, words of the error
MISFITS: dict[str, tuple[dict[str, object], str, str]] = {
    **{
        f"another sha256: {kind}": (row("", medium(kind, f"good.{end}", sha256="0" * 64)), r"sha256", "SHA-256")
        for kind, end in (("image", "png"), ("audio", "wav"), ("video", "mp4"))
    },
    **{
        f"another sha256 of an item: {kind}": (
            row("", **{f"{kind}s": [{"path": f"good.{end}", "sha256": "0" * 64}]}),
            r"sha256",
            "SHA-256",
        )
        for kind, end in (("image", "png"), ("audio", "wav"), ("video", "mp4"))
    },
    "more blocks than pictures": (row("", SLOT, SLOT, images=["good.png"]), "prompt", "2 blocks .* 1 items in images"),
    "fewer blocks than pictures": (row("", SLOT, images=["good.png"] * 3), "images", "1 blocks .* 3 items in images"),
    "no picture for a block": (row("", SLOT, images=[]), "prompt", "1 blocks .* 0 items in images"),
    "rejected pictures without a block": (
        row("", SLOT, images=["good.png"], rejected_images=["good.jpg"]),
        "rejected_images",
        "0 blocks .* 1 items in rejected_images",
    ),
    "a picture that is null": (row("", SLOT, images=[None]), r"images\[0\]", "a medium that is null"),
    "a picture that is a number": (row("", SLOT, images=[3]), r"images\[0\]", "a number 3"),
    "a block without a picture": (row("", SLOT), "prompt", "null|nothing|needs"),
    "a column that nobody claims": (row("", smells=["good.png"]), "smells", "no format or plugin claims this column"),
    "a block that nobody claims": (row("", medium("smell", "good.png")), "prompt", "smell"),
    "a field that nobody reads": (row("", medium("image", "good.png", quality=3)), "prompt", "quality|nothing reads"),
    "a sound as a picture": (row("", medium("image", "good.wav")), "prompt", "no picture of a known format|no WebP"),
    "a picture as a clip": (row("", medium("video", "good.png")), "prompt", "no container of clips"),
    "words that spell a marker": (row("", {"type": "text", "text": "<|modalign image|>"}), "prompt", "special token"),
}


def content(listener: str) -> dict[str, dict[str, tuple[bytes, str]]]:
    """Broken files by modality."""
    return {"image": pictures_broken(), "audio": sounds.broken(), "video": clips.broken(listener)}


def table(listener: str, outside: Path) -> dict[str, tuple[dict[str, object], str, str]]:
    """Every bad row by name: the row, and what its error says of field and cause."""
    found: dict[str, tuple[dict[str, object], str, str]] = {}
    for kind, files in content(listener).items():
        for name, (_, says) in files.items():
            found[f"{kind}: {name}"] = (row("", medium(kind, f"{kind} {name}")), kind, says)
    for name, (path, says) in PATHS.items():
        found[f"path: {name}"] = (row("", medium("image", path.replace("OUTSIDE", str(outside)))), "image", says)
    for number, url in enumerate(URLS):
        kind = ("image", "audio", "video")[number % 3]
        says = "not a URL|may not leave|must be relative|cannot be opened|no such file"
        found[f"url: {url}"] = (row("", medium(kind, url.replace("LISTENER", listener))), kind, says)
    found |= {f"misfit: {name}": one for name, one in MISFITS.items()}
    return {name: (one | {"id": name}, where, says) for name, (one, where, says) in found.items()}


NAMES = list(table("127.0.0.1:9", Path("/outside.png")))


def test_the_table_is_long_enough() -> None:
    assert len(NAMES) >= 120
    assert len(PATHS) >= 30
    assert all(len(files) >= 14 for files in content("127.0.0.1:9").values())


# --- where they lie, and what reads them -----------------------------------------------------------

SOCKETS: list[str] = []  #: what this process connected to, or asked the address of, while it was watched
_WATCH = {"on": False}


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if _WATCH["on"] and event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        SOCKETS.append(f"{event} {arguments[1:]}")


@pytest.fixture(scope="module")
def listener() -> Iterator[tuple[str, list[str]]]:
    """An address on this machine, and who called."""
    hits: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, caller = server.accept()
                except OSError:
                    return
                hits.append(str(caller))
                connection.close()

        threading.Thread(target=serve, daemon=True).start()
        sys.addaudithook(_audit)
        _WATCH["on"] = True
        yield f"127.0.0.1:{server.getsockname()[1]}", hits
        _WATCH["on"] = False
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, listener: tuple[str, list[str]]) -> Path:
    """A folder with models, and a data root with good files, broken ones, links, a pipe and a socket."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "words").mkdir()
    tiny_model(folder / "words")
    tiny_vision(folder / "image")
    tiny_audio(folder / "audio", "wav2vec2")
    tiny_video(folder / "video")
    root = folder / "set"
    (root / "inner").mkdir(parents=True)
    (folder / "set-2").mkdir()
    for name in ("outside.png", "set-2/a.png", "set/inner/good.png"):
        (folder / name).write_bytes(GOOD_FILES["good.png"])
    for name, data in GOOD_FILES.items():
        (root / name).write_bytes(data)
    for kind, files in content(listener[0]).items():
        for name, (data, _) in files.items():
            (root / f"{kind} {name}").write_bytes(data)
    (root / "link.png").symlink_to(folder / "outside.png")
    (root / "linked").symlink_to(folder)
    (root / "loop.png").symlink_to("good.png")
    os.mkfifo(root / "pipe.png")
    (root / "hard.png").hardlink_to(folder / "outside.png")
    os.link(root / "link.png", root / "hard-link.png", follow_symlinks=False)
    os.link(root / "pipe.png", root / "hard-pipe.png")
    (root / "caf\u00e9.png").write_bytes(GOOD_FILES["good.png"])
    here = Path.cwd()
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(root)  # the address of a socket may not be long
        server.bind("socket.png")
        os.chdir(here)
    return folder


def loaded(place: Path, *names: str) -> modalign.Model:
    """A model of words with encoders of these modalities."""
    encoders = {name: {"path": str(place / name), "type": {"image": "vision"}.get(name, name)} for name in names}
    return modalign.load(
        place / "words", encoders=encoders, media={name: MEDIA[name] for name in names if name in MEDIA}
    )


@pytest.fixture(scope="module")
def model(place: Path) -> modalign.Model:
    return loaded(place, "image", "audio", "video")


@pytest.fixture(scope="module")
def bad(place: Path, listener: tuple[str, list[str]]) -> dict[str, tuple[dict[str, object], str, str]]:
    return table(listener[0], place / "outside.png")


def written(file: Path, rows: list[dict[str, object]]) -> Path:
    file.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return file


def prepared(file: Path, preparer: Preparer, **settings: object) -> Prepared:
    return prepare(read(file, **settings), preparer, DPO.needs)


# --- the tests -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
def test_a_bad_row_beside_a_good_one_is_an_error_with_file_line_and_field(
    name: str, place: Path, model: modalign.Model, bad: dict[str, tuple[dict[str, object], str, str]]
) -> None:
    one, where, says = bad[name]
    file = written(place / "set/rows.jsonl", [GOOD[0], one])
    with pytest.raises(DataError) as caught:
        prepared(file, model.assembly.preparer)
    error = caught.value
    assert (Path(error.file or "").name, error.row) == ("rows.jsonl", 2)
    assert re.search(where, error.field or ""), error.field
    assert re.search(rf"rows\.jsonl:2 field=\S*{where}", str(error)), str(error)
    assert re.search(says, str(error)), str(error)
    assert not re.search(r"0x[0-9a-f]{6}|Traceback|\x00", str(error)), str(error)
    assert "iVBOR" not in str(error.__cause__)


def test_good_rows_of_every_mode_and_kind_are_taken(place: Path, model: modalign.Model) -> None:
    found = prepared(written(place / "set/good.jsonl", GOOD), model.assembly.preparer)
    assert len(found) == len(GOOD)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
def test_bad_rows_are_skipped_counted_and_listed_and_the_good_ones_train(
    place: Path, model: modalign.Model, bad: dict[str, tuple[dict[str, object], str, str]], tmp_path: Path
) -> None:
    shuffled: list[tuple[dict[str, object], str | None]] = [(one, None) for one in GOOD]
    shuffled += [(one, name) for name, (one, _, _) in bad.items()]
    Random(0).shuffle(shuffled)
    file = written(place / "set/all.jsonl", [one for one, _ in shuffled])
    found = prepared(file, model.assembly.preparer, on_bad_row="skip", max_bad_fraction=1.0)
    wrong = [number for number, (_, name) in enumerate(shuffled, 1) if name is not None]
    assert [one.row for one in found.bad_rows] == wrong
    assert [number + 1 for number in found.kept] == [n for n in range(1, len(shuffled) + 1) if n not in set(wrong)]
    assert found.skipped.total() == len(bad)
    trainer = Trainer(
        model=model, objective=DPO(), data=found, output_dir=tmp_path / "run", max_steps=1, learning_rate=1e-3
    )
    trainer.train()
    (step, *_) = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert step["loss"] == pytest.approx(0.6931, abs=1e-4)  # log 2: policy and reference are the same yet
    listed = [json.loads(line) for line in (tmp_path / "run/bad_rows.jsonl").read_text().splitlines()]
    assert [one["row"] for one in listed] == wrong
    for one in listed:
        _, where, says = bad[shuffled[one["row"] - 1][1] or ""]
        assert Path(one["file"]).name == "all.jsonl"
        assert re.search(where, one["field"])
        assert re.search(says, f"{one['what']} {one['got']} {one['fix']}")


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
def test_the_command_line_lists_every_bad_row(
    place: Path,
    model: modalign.Model,
    bad: dict[str, tuple[dict[str, object], str, str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model.save(place / "saved")
    file = written(place / "set/check.jsonl", [*GOOD, *(one for one, _, _ in bad.values())])
    arguments = ["data", "check", str(file), "--model", str(place / "saved"), "--bad-rows", str(tmp_path / "bad.jsonl")]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 3
    listed = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert [one["row"] for one in listed] == list(range(len(GOOD) + 1, len(GOOD) + len(bad) + 1))
    assert f"{len(bad)} of {len(GOOD) + len(bad)} rows cannot be used" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(("kind", "file"), [("audio", "good.wav"), ("video", "good.mp4")])
def test_a_medium_that_the_model_cannot_take_is_a_bad_row(kind: str, file: str, place: Path) -> None:
    rows = written(place / "set/foreign.jsonl", [GOOD[0], row("", medium(kind, file))])
    with pytest.raises(
        DataError, match=rf"foreign.jsonl:2 field=prompt: LlamaForCausalLM takes no {kind}.*it takes image"
    ):
        prepared(rows, loaded(place, "image").assembly.preparer)


def test_nobody_was_called(listener: tuple[str, list[str]], place: Path, model: modalign.Model) -> None:
    address, hits = listener
    urls = [row(url, medium("video", url.replace("LISTENER", address))) for url in URLS]
    found = prepared(
        written(place / "set/urls.jsonl", [GOOD[0], *urls]),
        model.assembly.preparer,
        on_bad_row="skip",
        max_bad_fraction=1.0,
    )
    assert len(found.bad_rows) == len(URLS)
    assert hits == []
    assert SOCKETS == []
    # and the two would have known
    host, _, port = address.partition(":")
    socket.create_connection((host, int(port)), timeout=5).close()
    assert any("socket.connect" in one for one in SOCKETS)
    SOCKETS.clear()
