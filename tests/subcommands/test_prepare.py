import importlib
import io
import shlex
import signal
import socket
import subprocess
import sys
import tarfile
import time
from dataclasses import replace

import pytest
from PIL import Image

from deconfuse import dataset
from deconfuse.data.build import build
from deconfuse.dataset import cub, sop
from deconfuse.subcommands.prepare import main, names
from deconfuse.system.errors import UserError
from tests.conftest import ROOT

BIRDS = {99: 2, 100: 3, 101: 2, 102: 4}


def jpeg(i):
    buffer = io.BytesIO()
    Image.new("RGB", (9, 8), (i * 20 % 256, 3, 4)).save(buffer, "JPEG")
    return buffer.getvalue()


def birds():
    """The files of a small CUB_200_2011.tgz: 5 images of 2 classes to train, 6 of 2 to test."""
    names = [f"{label:03}.Bird/Bird_{k}.jpg" for label, size in BIRDS.items() for k in range(size)]
    files = {f"CUB_200_2011/images/{name}": jpeg(i) for i, name in enumerate(names)}
    lists = {
        "images.txt": [f"{i + 1} {name}" for i, name in enumerate(names)],
        "image_class_labels.txt": [f"{i + 1} {int(name[:3])}" for i, name in enumerate(names)],
    }
    files |= {f"CUB_200_2011/{name}": "\n".join(lines).encode() for name, lines in lists.items()}
    return {**files, "attributes.txt": b"of no use here"}


def packed(path, files, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def small(monkeypatch):
    """CUB as if these few birds were all."""
    monkeypatch.setattr(cub, "LAYOUT", replace(cub.LAYOUT, counts={"train": (5, 2), "test": (6, 2)}))


def test_an_archive_becomes_the_folder_the_data_set_looks_in(small, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    packed(tmp_path / "CUB_200_2011.tgz", birds())
    main(["cub", "CUB_200_2011.tgz"])
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["CUB_200_2011"]
    assert sorted(path.name for path in (tmp_path / "data" / "CUB_200_2011").iterdir()) == [
        "image_class_labels.txt",
        "images",
        "images.txt",
    ]
    assert capsys.readouterr().out.splitlines() == [
        "cub in data/CUB_200_2011",
        "  train         5 images of      2 classes",
        "  test          6 images of      2 classes",
        "whole: deconfuse run dataset=cub dataset.root=data/CUB_200_2011 model=resnet50 recipe=photo",
    ]
    assert len(build(cub.load("data/CUB_200_2011")).train) == 5


def test_an_unpacked_folder_is_counted_where_it_is(small, tmp_path, capsys):
    safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # since Python 3.11.4
    with tarfile.open(packed(tmp_path / "x.tgz", birds())) as archive:
        archive.extractall(tmp_path / "there", **safely)
    for folder in ("there", "there/CUB_200_2011"):
        main(["cub", str(tmp_path / folder)])
        assert f"cub in {tmp_path}/there/CUB_200_2011\n" in capsys.readouterr().out


def test_several_files_make_one_data_set(tmp_path, capsys, monkeypatch):
    rows = {"train": [f"{i} {1 + i % 2} 1 mug_final/{i}.JPG" for i in range(4)]}
    rows["test"] = [f"{i} {3 + i % 2} 1 sofa_final/{i}.JPG" for i in range(6)]
    for side, lines in rows.items():
        header = "image_id class_id super_class_id path"
        (tmp_path / f"Ebay_{side}.txt").write_text("\n".join([header, *lines]))
        photos = {line.split()[3]: b"x" for line in lines}
        packed(tmp_path / f"{side}.tar", photos, "w")
    monkeypatch.setattr(sop, "LAYOUT", replace(sop.LAYOUT, counts={"train": (4, 2), "test": (6, 2)}))
    words = [str(tmp_path / name) for name in ("Ebay_train.txt", "Ebay_test.txt", "train.tar", "test.tar")]
    main(["sop", *words, "--into", str(tmp_path / "in" / "to")])
    assert "6 images of      2 classes" in capsys.readouterr().out
    assert (tmp_path / "in" / "to" / "Stanford_Online_Products" / "sofa_final" / "5.JPG").read_bytes() == b"x"


def refused(tmp_path, files, message, capsys):
    """The archive is refused with the message, and leaves nothing."""
    packed(tmp_path / "x.tgz", files)
    with pytest.raises(UserError, match=message) as caught:
        main(["cub", str(tmp_path / "x.tgz"), "--into", str(tmp_path / "data")])
    assert "partial" not in str(caught.value)
    assert not any((tmp_path / "data").iterdir())
    assert capsys.readouterr().out == ""


def test_missing_images_are_counted_and_named(small, tmp_path, capsys):
    files = birds()
    for name in ("099.Bird/Bird_1", "102.Bird/Bird_0", "102.Bird/Bird_2", "102.Bird/Bird_3"):
        del files[f"CUB_200_2011/images/{name}.jpg"]
    message = (
        r"^dataset cub: 4 of 11 images are not in x\.tgz/CUB_200_2011: images/099\.Bird/Bird_1\.jpg, "
        r"images/102\.Bird/Bird_0\.jpg, images/102\.Bird/Bird_2\.jpg and 1 more; fetch and unpack it again$"
    )
    refused(tmp_path, files, message, capsys)


def test_wrong_counts_are_an_error(tmp_path, capsys):
    message = (
        r"train 5 images of 2 classes, not 5,864 of 100; test 6 images of 2 classes, not 5,924 of 100; fetch"
    )
    refused(tmp_path, birds(), message, capsys)


def test_an_archive_of_something_else_is_an_error(small, tmp_path, capsys):
    refused(
        tmp_path, {"photo.jpg": b"x"}, r"^dataset cub: looked in x\.tgz for images\.txt, .* found no", capsys
    )
    files = {name: content.replace(b" ", b"") for name, content in birds().items()}
    refused(tmp_path, files, r"^x\.tgz/CUB_200_2011/image\w+\.txt: every line must be 'id value'", capsys)
    below = {**birds(), "attributes.txt/x": b""}
    refused(tmp_path, below, r"x\.tgz: damaged \(.+\); fetch it again$", capsys)
    refused(tmp_path, {**birds(), "../x": b""}, r"x\.tgz: \.\./x would be written outside", capsys)


def test_what_is_there_already_is_never_replaced(small, tmp_path):
    packed(tmp_path / "x.tgz", birds())
    own = tmp_path / "data" / "CUB_200_2011" / "mine.txt"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    with pytest.raises(
        UserError, match=r"CUB_200_2011 is there already; check it with .*prepare cub .*--into FOLDER"
    ):
        main(["cub", str(tmp_path / "x.tgz"), "--into", str(tmp_path / "data")])
    assert own.read_text() == "mine"


def test_printed_commands_can_be_pasted_whatever_the_folder_is_called(small, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    packed(tmp_path / "x.tgz", birds())
    words = ["cub", "x.tgz", "--into", "my $HOME's"]
    main(words)
    command = capsys.readouterr().out.splitlines()[-1].removeprefix("whole: ")
    assert "dataset.root=my $HOME's/CUB_200_2011" in shlex.split(command)
    with pytest.raises(UserError) as caught:
        main(words)
    command = str(caught.value).split("check it with ")[1].split(", or move")[0]
    assert shlex.split(command) == ["deconfuse", "prepare", "cub", "my $HOME's/CUB_200_2011"]


def test_an_archive_that_cannot_be_opened_is_not_the_disks_fault(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as plug:
        plug.bind("x.tgz")
        with pytest.raises(
            UserError, match=r"^x\.tgz: can't be read \(No such device or address\); fetch it"
        ):
            main(["cub", "x.tgz"])
    assert not (tmp_path / "data").exists()


def test_a_full_disk_is_one_line_and_leaves_nothing(small, tmp_path, monkeypatch):
    def full(*args, **more):
        raise OSError(28, "No space left on device")

    packed(tmp_path / "x.tgz", birds())
    monkeypatch.setattr("tarfile.copyfileobj", full)
    with pytest.raises(
        UserError, match=r"could not write .*No space left.* another place with --into FOLDER$"
    ):
        main(["cub", str(tmp_path / "x.tgz"), "--into", str(tmp_path / "data")])
    assert not any((tmp_path / "data").iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cup", "."], r"^data set=cup is not known; did you mean cub\? Valid: cars, cub, inshop, sop$"),
        (["cub", "nothing.tgz"], r"/nothing\.tgz: no such file or folder$"),
        (["cub", "src", "tests"], r"^src is a folder: give either one unpacked folder or archives$"),
        (["cub", "src"], r"^dataset cub: looked in .*/src for images\.txt"),
    ],
)
def test_wrong_words_are_one_line(words, message, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match=message):
        main(words)


def test_killed_half_way_it_leaves_nothing_that_looks_whole(tmp_path):
    archive = packed(tmp_path / "x.tgz", birds())
    script = (
        "import tarfile, time, deconfuse.subcommands.prepare as prepare\n"
        "real = tarfile.copyfileobj\n"
        "tarfile.copyfileobj = lambda *files, **more: (time.sleep(0.5), real(*files, **more))\n"
        f"prepare.main(['cub', {str(archive)!r}, '--into', {str(tmp_path / 'data')!r}])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    for _ in range(600):
        if len(list((tmp_path / "data").rglob("*.jpg"))) > 2 or process.poll() is not None:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=60) == -signal.SIGKILL
    (left,) = (tmp_path / "data").iterdir()
    assert left.match(f".CUB_200_2011.*.{process.pid}.partial")


def test_a_data_set_whose_module_has_a_layout_can_be_prepared_and_none_is_imported(
    tmp_path, monkeypatch, capsys
):
    assert names() == [
        name for name in ("cars", "cub", "inshop", "sop", "folder", "glyphs", "omniglot")
        if hasattr(importlib.import_module(f"deconfuse.dataset.{name}"), "LAYOUT")
    ]  # fmt: skip
    home = tmp_path / "more"
    home.mkdir()
    layout = "from deconfuse.dataset.cub import LAYOUT as OF_CUB, load\n"
    (home / "flowers.py").write_text("raise AssertionError\nLAYOUT = 1\n")
    (home / "birds.py").write_text(layout + "import dataclasses\nLAYOUT = dataclasses.replace(OF_CUB)\n")
    (home / "own.py").write_text("def load():\n    LAYOUT = 1\n")
    monkeypatch.setattr(dataset, "__path__", [*dataset.__path__, str(home)])
    assert names() == ["cars", "cub", "inshop", "sop", "birds", "flowers"]
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "cars, cub, inshop, sop, birds, flowers" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(UserError, match="birds"):
        main(["bird", str(tmp_path)])
    with pytest.raises(UserError, match=rf"looked in {home} for images.txt"):
        main(["birds", str(home)])
