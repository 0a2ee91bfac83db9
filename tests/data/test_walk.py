import pytest

from deconfuse.data.walk import images_below


@pytest.fixture
def folder(tmp_path):
    """Two classes of images; walking looks at names only."""
    for name in ("cat/1.png", "cat/0.JPG", "cat/deep/2.webp", "dog/0.png"):
        written(tmp_path / "all" / name)
    return tmp_path / "all"


def written(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def test_images_at_any_depth_are_found_in_the_order_of_their_folders(folder):
    written(folder / "cat b/0.png")  # a space sorts before a slash
    found = images_below(folder)
    assert found.names == ["cat/0.JPG", "cat/1.png", "cat/deep/2.webp", "cat b/0.png", "dog/0.png"]
    assert found.lines() == []


def test_what_is_left_out_is_counted_by_its_reason(folder):
    for name in ("cat/a.txt", "dog/b.TXT", "README", "cat/Thumbs.db", "dog/@eaDir/0.png", "loose.png"):
        written(folder / name)
    for i in range(3):
        written(folder / ".lynx" / f"{i}.png")
    found = images_below(folder)
    assert len(found.names) == 4
    assert found.left_out == {".txt": 2, "without an ending": 1}
    assert found.tools == {"Thumbs.db": 1, "@eaDir": 1}
    assert found.loose == ["loose.png"]
    assert found.hidden == {".lynx": 3}
    assert found.lines() == [
        "left out 3 files without an image's ending: 2 .txt, 1 without an ending",
        "left out 2 files that other programs leave: 1 in or named Thumbs.db, 1 in or named @eaDir",
        "left out 1 image beside the class folders: loose.png",
        "left out the folder .lynx with 3 images, as its name begins with a dot; rename it if it is a class",
    ]


def test_a_folder_is_read_once_below_each_class_however_many_links_lead_to_it(folder, tmp_path):
    written(tmp_path / "elsewhere/9.png")
    (folder / "cat/one").symlink_to(tmp_path / "elsewhere")
    (folder / "cat/two").symlink_to(tmp_path / "elsewhere")
    (folder / "dog/one").symlink_to(tmp_path / "elsewhere")
    (folder / "cat/up").symlink_to(folder)
    (folder / "dog/gone.png").symlink_to(tmp_path / "nothing.png")
    found = images_below(folder)
    linked = [name for name in found.names if name.endswith("9.png")]
    assert sorted(name.split("/")[0] for name in linked) == ["cat", "dog"]
    assert len(found.loops) == 2  # the second link, and the one that leads up
    assert "cat/up" in found.loops
    assert found.broken == ["dog/gone.png"]
    assert [line.partition(":")[0] for line in found.lines()] == [
        "left out 1 link to nothing",
        "did not follow 2 links to folders read already",
    ]
