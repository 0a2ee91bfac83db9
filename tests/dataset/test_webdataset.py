import io
import json
import pickle
import tarfile

import numpy as np
import pytest
from PIL import Image

from deconfuse.data.build import build
from deconfuse.dataset import folder, webdataset
from deconfuse.system.errors import UserError
from tests.samples import reader

load = reader(webdataset.load)


def encoded(seed, format="PNG", mode="RGB"):
    bands = len(Image.new(mode, (1, 1)).getbands())
    values = np.random.default_rng(seed).integers(0, 256, (12, 15, bands), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values.squeeze()).save(buffer, format)
    return buffer.getvalue()


def shard(path, members):
    """A tar as the library writes it: members of a key one after the other, uncompressed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


WORDS = ("ant", "bee", "cat", "dog", "eel", "fox")
FORMATS = {"jpg": ("JPEG", "RGB"), "png": ("PNG", "RGBA"), "webp": ("WEBP", "RGB")}


def sample(i, form=None):
    """(extension, bytes) of image i."""
    extension = form or list(FORMATS)[i % 3]
    return extension, encoded(i, *FORMATS[extension])


@pytest.fixture
def animals(tmp_path):
    """The same 24 images of six classes in two shards, and in a folder."""
    for number in (0, 1):
        members = {"__meta__/version.txt": b"1"}
        for i in range(12 * number, 12 * number + 12):
            extension, content = sample(i)
            members |= {f"{i:04d}.{extension}": content, f"{i:04d}.cls": str(i % 6).encode()}
            file = tmp_path / f"folder/{WORDS[i % 6]}/{i:04d}.{extension}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        shard(tmp_path / f"shards/animals-{number:03d}.tar", members)
    (tmp_path / "shards/classnames.txt").write_text("\n".join(WORDS) + "\n")
    return tmp_path


def by_image(split):
    """{number of the image: (its pixels, its class)} and the classes of the training part."""
    found = {}
    for part in (split.train, split.query):
        for i, name in enumerate(part.names):
            number = int(name.rpartition("/")[2].partition(".")[0])
            found[number] = (np.asarray(part.image(i)), split.class_names[part.labels[i]])
    return found, split.class_names[: split.num_classes]


def test_images_in_shards_are_the_images_of_a_folder(animals, tmp_path):
    """Pixels, classes, sides and the contents that fingerprints are made of; transparency is composited."""
    common = {"seed": 3, "image_size": 8, "background": "#204060", "on_bad_image": "raise"}
    shards = load(str(animals / "shards"), index_dir=str(tmp_path / "index"), **common)
    files = reader(folder.load)(str(animals / "folder"), **common)
    (mine, trained), (theirs, expected) = by_image(shards), by_image(files)
    assert trained == expected
    assert mine.keys() == theirs.keys() == set(range(24))
    for i in mine:
        np.testing.assert_array_equal(mine[i][0], theirs[i][0])
        assert mine[i][1] == theirs[i][1] == WORDS[i % 6]
    assert shards.train.names[0].startswith("animals-000/0")
    for part, other in ((shards.train, files.train), (shards.query, files.query)):
        contents = [{each.images.content(int(row)) for row in each.rows} for each in (part, other)]
        assert contents[0] == contents[1]
    again = pickle.loads(pickle.dumps(shards.train.images))  # as a loader's processes get it
    np.testing.assert_array_equal(np.asarray(again[5]), np.asarray(shards.train.images[5]))


def test_a_shards_index_is_made_once_and_again_when_the_shard_changes(animals, tmp_path, monkeypatch):
    where = str(tmp_path / "index")
    first = webdataset.load(str(animals / "shards"), index_dir=where)
    with monkeypatch.context() as patch:
        patch.setattr(tarfile, "open", None)
        again = webdataset.load(str(animals / "shards"), index_dir=where)
    assert again.names == first.names
    extension, content = sample(30)
    shard(animals / "shards/animals-001.tar", {f"x.{extension}": content, "x.cls": b"2"})
    names = webdataset.load(str(animals / "shards"), index_dir=where).names
    assert names == [*first.names[:12], "animals-001/x.jpg"]


def test_a_pattern_names_shards_as_a_shell_does(animals):
    assert webdataset.expanded("a-{08..11}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]
    assert webdataset.expanded("{a,b}-{9..10}") == ["a-9", "a-10", "b-9", "b-10"]
    everything = webdataset.load(str(animals / "shards")).names
    for pattern in ("animals-{000..001}.tar", "*-00[01].tar", ["animals-000.tar", "animals-001.tar"]):
        assert webdataset.load(str(animals / "shards"), pattern).names == everything
    one = webdataset.load(shards=str(animals / "shards/animals-001.tar"), test_classes=["bee"])
    assert one.names == everything[12:]
    assert {c for c, part in zip(one.classes, one.parts, strict=True) if part == "test"} == {"bee"}


@pytest.mark.parametrize(
    ("words", "split"),
    [
        (("train/0", "test/0"), ["train", "test"]),
        (("birds-train-00", "birds-val-00"), ["train", "test"]),
        (("train-0", "query-0", "gallery-0"), ["train", "query", "gallery"]),
    ],
)
def test_shards_say_their_splits_where_no_class_is_in_two(tmp_path, words, split):
    for number, word in enumerate(words):
        kind = min(number, 1)  # query and gallery have the same classes
        members = {}
        for i in range(4):
            members |= {
                f"{i}.png": encoded(10 * number + i),
                f"{i}.txt": f"{WORDS[2 * kind + i % 2]}\n".encode(),
            }
        shard(tmp_path / f"{word}.tar", members)
    listing = webdataset.load(str(tmp_path))
    of = dict(zip(words, split, strict=True))
    assert list(listing.parts) == [of[name.rpartition("/")[0]] for name in listing.names]
    assert len(listing.parts) == 4 * len(words)
    assert set(listing.classes) == set(WORDS[:4])
    drawn = webdataset.load(str(tmp_path), test_classes=["ant", "cat"])
    sides = dict(zip(drawn.classes, drawn.parts, strict=True))
    assert sides == {"ant": "test", "bee": "train", "cat": "test", "dog": "train"}


def of_one(tmp_path, **cells):
    """A shard in which each of four samples has an image and these cells."""
    members = {}
    for i in range(4):
        members |= {f"a/{i}.png": encoded(i)}
        members |= {f"a/{i}.{name.replace('_', '.')}": values[i].encode() for name, values in cells.items()}
    return shard(tmp_path / "a.tar", members)


def test_the_class_is_in_a_json_a_text_or_another_member(tmp_path):
    infos = [json.dumps({"label": c, "of": {"kind": i % 2}}) for i, c in enumerate("ABAB")]
    of_one(tmp_path, json=infos, txt=list("wxyz"), name_txt=list("CDCD"))
    for label, expected in ((None, "ABAB"), ("json", "ABAB"), ("json.of.kind", "0101"), ("name.txt", "CDCD")):
        assert "".join(webdataset.load(str(tmp_path), label=label).classes) == expected, label


def test_one_of_several_images_is_chosen(tmp_path):
    members = {}
    for i in range(4):
        members |= {
            f"{i}.Left.PNG": encoded(i),
            f"{i}.right.png": encoded(50 + i),
            f"{i}.cls": b"%d" % (i % 2),
        }
    shard(tmp_path / "a.tar", members)
    with pytest.raises(
        UserError, match=r"a\.tar: 0 has several images \(left\.png, right\.png\); choose one with"
    ):
        webdataset.load(str(tmp_path))
    images = webdataset.load(str(tmp_path), image="left.png").images
    np.testing.assert_array_equal(np.asarray(images[2]), np.asarray(Image.open(io.BytesIO(encoded(2)))))


def test_a_bad_member_is_named_in_one_line_or_skipped(animals, capsys):
    path = animals / "shards/animals-000.tar"
    content = path.read_bytes()
    place = content.index(encoded(4, "PNG", "RGBA"))
    path.write_bytes(content[: place + 60] + b"\0" * 40 + content[place + 100 :])
    common = {"image_size": 8, "test_classes": ["fox", "bee"]}
    split = load(str(animals / "shards"), on_bad_image="skip", **common)
    assert len(split.train) + len(split.query) == 23
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("skipped ")]
    assert len(said) == 1
    assert f"{path}/0004.png: not a readable image" in said[0]
    listing = webdataset.load(str(animals / "shards"))
    with pytest.raises(
        UserError, match=r"animals-000\.tar/0004\.png: not a readable image .*; replace it or set"
    ):
        build(listing, image_size=8, on_bad_image="later").train.images[4]


MESSAGES = {
    "cut": r"animals-000\.tar: damaged \(.*\); fetch it again",
    "header": r"animals-000\.tar: damaged \(no header at byte \d+\); fetch it again",
    "gz": r"animals-000\.tar: is compressed, so no member can be read alone; unpack it to \.tar",
    "twice": r"animals-000\.tar: 0001\.cls is there twice; keep one",
    "no label": r": 1 sample has no class by cls: animals-000\.tar/0001; mend or leave out, or name another",
    "no number": r": 1 sample has no class in the list classnames\.txt by cls: animals-000\.tar/0001",
    "no image": r"no member is an image; their extensions are cls",
}


@pytest.mark.parametrize("what", MESSAGES)
def test_what_is_wrong_with_a_shard_is_one_line(animals, what):
    path = animals / "shards/animals-000.tar"
    content = path.read_bytes()
    one = {"0001.png": encoded(1), "0001.cls": b"1", "0002.png": encoded(2), "0002.cls": b"2"}
    if what == "cut":
        path.write_bytes(content[: content.index(encoded(4, "PNG", "RGBA")) + 300])
    elif what == "header":
        with tarfile.open(path) as file:
            place = file.getmembers()[4].offset
        path.write_bytes(content[:place] + b"x" * 512 + content[place + 512 :])
    elif what == "gz":
        with tarfile.open(path, "w:gz") as file:
            file.addfile(tarfile.TarInfo("a"))
    elif what == "twice":
        with tarfile.open(path, "a") as file:
            file.addfile(tarfile.TarInfo("0001.cls"))
    elif what == "no image":
        (animals / "shards/animals-001.tar").unlink()
        shard(path, {"0001.cls": b"1"})
    else:
        if what == "no label":
            (animals / "shards/classnames.txt").unlink()
        shard(path, one | {"0001.cls": {"no label": b" ", "no number": b"77"}[what]})
    with pytest.raises(UserError, match=MESSAGES[what]) as caught:
        webdataset.load(str(animals / "shards"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "no shards are named; give a folder of .tar files as dataset.root=DIR, or"),
        ({"root": "gone"}, "gone is no folder; give a folder"),
        ({"shards": "a-{000..002}.tar"}, r"dataset\.shards: no a-000\.tar, a-001\.tar, a-002\.tar"),
        ({"shards": "b-*.tar"}, r"dataset\.shards: nothing matches b-\*\.tar"),
        ({"shards": "a-{000}.tar"}, r"\{000\} is no range; write \{000\.\.003\} or"),
    ],
)
def test_shards_that_are_not_there_are_one_line(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        webdataset.load(**arguments)


def test_a_folder_with_compressed_shards_alone_says_so(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(b"")
    with pytest.raises(UserError, match=r"has no \.tar file; a\.tar\.gz is compressed; unpack to \.tar"):
        webdataset.load(str(tmp_path))
