import io
import stat
import tarfile
import zipfile

import pytest

from deconfuse.system.archive import tar_members, unpack
from deconfuse.system.errors import UserError

FILES = {"Made/list.txt": b"eins\n" * 999, "Made/images/a b.jpg": bytes(range(256)) * 70, "Made/empty": b""}


def tar(path, mode="w:gz", files=FILES, extra=()):
    """A tar of files and further TarInfo entries."""
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in extra:
            archive.addfile(info)
    return path


def zipped(path, files=FILES, links=()):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        for name, target in links:
            info = zipfile.ZipInfo(name)
            info.create_system = 3
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, target)
    return path


def entry(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def content(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "outer" / "home"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    ("name", "mode"), [("x.tgz", "w:gz"), ("x.tar", "w"), ("x.tar.bz2", "w:bz2"), ("X.TAR.XZ", "w:xz")]
)
def test_a_tar_is_unpacked(tmp_path, home, name, mode):
    unpack(tar(tmp_path / name, mode, extra=[entry("Made/void", tarfile.DIRTYPE)]), home)
    assert content(home) == FILES
    assert (home / "Made" / "void").is_dir()


def test_a_zip_is_unpacked(tmp_path, home):
    unpack(zipped(tmp_path / "x.zip", {**FILES, "Made/void/": b""}), home)
    assert content(home) == FILES
    assert (home / "Made" / "void").is_dir()


def test_a_zip_that_ends_a_tar_is_one_of_its_files(tmp_path, home):
    inner = zipped(tmp_path / "inner.zip").read_bytes()
    unpack(tar(tmp_path / "x.tar", "w", {"inner.zip": inner}), home)
    assert content(home) == {"inner.zip": inner}


def test_another_file_is_copied(tmp_path, home):
    (tmp_path / "cars_annos.mat").write_bytes(b"MATLAB")
    unpack(tmp_path / "cars_annos.mat", home)
    assert content(home) == {"cars_annos.mat": b"MATLAB"}


def test_a_colon_is_no_drive(tmp_path, home):
    files = {"12:30.jpg": b"noon", "ab:c/d:e.jpg": b"else"}
    unpack(tar(tmp_path / "x.tgz", files=files), home)
    assert content(home) == files


@pytest.mark.parametrize(
    "files",
    [
        {"a": b"1", "a/b": b"2"},
        {"a/b": b"1", "a": b"2"},
        {".": b"1"},
        {"a" * 300: b"1"},
        {"a": b"", "a/": b""},
    ],
)
def test_members_that_no_folder_can_hold_are_damage(tmp_path, home, files):
    archive = tar(tmp_path / "x.tgz", files={k: v for k, v in files.items() if not k.endswith("/")})
    if "a/" in files:
        archive = tar(archive, files={"a": b""}, extra=[entry("a", tarfile.DIRTYPE)])
    with pytest.raises(UserError, match=r"x\.tgz: damaged \([A-Z][a-z ]+\); fetch it again$"):
        unpack(archive, home)


def test_a_link_to_its_own_file_is_damage(tmp_path, home):
    own = entry("Made/list.txt", tarfile.LNKTYPE, "Made/list.txt")
    with pytest.raises(UserError, match=r"x\.tgz: damaged \(.+ are the same file\); fetch it again$"):
        unpack(tar(tmp_path / "x.tgz", extra=[own]), home)


OUTSIDE = [
    "/etc/made",
    "../made",
    "Made/../../made",
    "..",
    "C:/made",
    "C:\\made",
    "./c:made",
    "..\\made",
    "Made\\..\\..\\made",
]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("make", [tar, zipped])
def test_no_member_leaves_the_folder(tmp_path, home, make, name):
    archive = make(tmp_path / ("x.tgz" if make is tar else "x.zip"), files={name: b"bad", "good": b"good"})
    before = content(tmp_path)
    with pytest.raises(
        UserError, match=r"^.*x\.\w+: .*made? would be written outside the folder|: \.\. would be"
    ):
        unpack(archive, home)
    assert content(tmp_path) == before


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("target", ["/etc/passwd", "../../secret", "../../../secret"])
def test_no_link_points_outside(tmp_path, home, kind, target):
    (tmp_path / "secret").write_text("secret")
    archive = tar(tmp_path / "x.tgz", extra=[entry("Made/link", kind, target)])
    with pytest.raises(
        UserError, match=r"x\.tgz: Made/link would be written outside the folder; the archive is not"
    ):
        unpack(archive, home)
    with pytest.raises(UserError, match=r"x\.zip: Made/link would be written outside"):
        unpack(zipped(tmp_path / "x.zip", links=[("Made/link", target)]), home)
    assert not list(home.rglob("link"))


def test_a_file_behind_a_linked_folder_stays_inside(tmp_path, home):
    # The classic: a link to a folder outside, then a file through it. Here no link is ever made.
    (tmp_path / "outer" / "there").mkdir()
    link = entry("Made", tarfile.SYMTYPE, "there")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.addfile(link)
        info = tarfile.TarInfo("Made/bad")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"bad"))
    with pytest.raises(UserError, match=r"Made is a link to what is no file in it"):
        unpack(tmp_path / "x.tar", home)
    assert not list((tmp_path / "outer" / "there").iterdir())
    assert not any(path.is_symlink() for path in home.rglob("*"))


@pytest.mark.parametrize(
    ("kind", "target"), [(tarfile.SYMTYPE, "images/a b.jpg"), (tarfile.LNKTYPE, "Made/images/a b.jpg")]
)
def test_a_link_inside_becomes_a_copy(tmp_path, home, kind, target):
    unpack(tar(tmp_path / "x.tgz", extra=[entry("Made/link.jpg", kind, target)]), home)
    assert content(home) == {**FILES, "Made/link.jpg": FILES["Made/images/a b.jpg"]}
    assert not (home / "Made" / "link.jpg").is_symlink()


def test_a_link_may_come_before_the_link_it_points_to(tmp_path, home):
    chain = [("l3", "l2"), ("l2", "l1"), ("l4", "l3"), ("l1", "Made/list.txt")]
    links = [entry(name, tarfile.SYMTYPE, target) for name, target in chain]
    unpack(tar(tmp_path / "x.tgz", extra=links), home)
    assert content(home) == {**FILES, **{name: FILES["Made/list.txt"] for name, _ in chain}}


def test_links_in_a_circle_are_refused(tmp_path, home):
    links = [entry("b", tarfile.SYMTYPE, "a"), entry("a", tarfile.SYMTYPE, "b")]
    with pytest.raises(UserError, match=r"x\.tgz: b is a link to what is no file in it"):
        unpack(tar(tmp_path / "x.tgz", extra=links), home)


def test_a_zips_link_inside_becomes_a_copy(tmp_path, home):
    unpack(zipped(tmp_path / "x.zip", links=[("Made/images/link", "../list.txt")]), home)
    assert content(home) == {**FILES, "Made/images/link": FILES["Made/list.txt"]}


@pytest.mark.parametrize("target", ["Made/images", "nothing", "Made"])
def test_a_link_to_no_file_is_refused(tmp_path, home, target):
    with pytest.raises(UserError, match=r"x\.tgz: link is a link to what is no file in it"):
        unpack(tar(tmp_path / "x.tgz", extra=[entry("link", tarfile.SYMTYPE, target)]), home)


def test_a_python_without_the_data_filter_unpacks_no_tar(tmp_path, home, monkeypatch):
    monkeypatch.delattr(tarfile, "data_filter")
    with pytest.raises(
        UserError,
        match=r"x\.tgz: Python 3\.\d+\.\d+ can't unpack it safely; take 3\.11\.4 or later, or unpack",
    ):
        unpack(tar(tmp_path / "x.tgz"), home)
    unpack(zipped(tmp_path / "x.zip"), home)
    assert content(home) == FILES


@pytest.mark.parametrize("make", [tar, zipped])
def test_names_with_the_separator_of_windows_are_paths(tmp_path, home, make):
    extra = {} if make is tar else {"Made\\void\\": b""}
    files = {**extra, "Made\\a\\1.jpg": b"one"}
    unpack(make(tmp_path / ("x.tgz" if make is tar else "x.zip"), files=files), home)
    assert content(home) == {"Made/a/1.jpg": b"one"}


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_are_refused(tmp_path, home, kind):
    with pytest.raises(
        UserError, match=r"x\.tgz: Made/null is no file, folder or link; the archive is not safe"
    ):
        unpack(tar(tmp_path / "x.tgz", extra=[entry("Made/null", kind)]), home)
    assert content(home) == FILES


@pytest.mark.parametrize("part", [1, 30, 60, 90, 99])
@pytest.mark.parametrize("name", ["x.tgz", "x.zip", "x.tar.xz"])
def test_a_cut_archive_is_refused_wherever_it_ends(tmp_path, home, name, part):
    make = zipped if name == "x.zip" else tar
    path = make(tmp_path / name, *([] if make is zipped else ["w:gz" if name == "x.tgz" else "w:xz"]))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * part // 100])
    with pytest.raises(
        UserError, match=rf"^{path}: (damaged \(.+\)|neither a tar nor a zip archive); fetch it again$"
    ):
        unpack(path, home)


def test_flipped_bytes_are_noticed(tmp_path, home):
    for make, name in ((tar, "x.tgz"), (zipped, "x.zip")):
        path = make(tmp_path / name)
        whole = bytearray(path.read_bytes())
        for i in range(40, 80):
            whole[i] ^= 0x55
        path.write_bytes(whole)
        with pytest.raises(UserError, match=r"damaged|neither"):
            unpack(path, home)


def test_a_page_that_was_saved_as_an_archive_is_refused(tmp_path, home):
    (tmp_path / "x.tgz").write_text("<html>404</html>")
    with pytest.raises(UserError, match=r"x\.tgz: neither a tar nor a zip archive; fetch it again"):
        unpack(tmp_path / "x.tgz", home)


def test_an_encrypted_zip_is_told_apart(tmp_path, home):
    path = zipped(tmp_path / "x.zip", {"a": b"x" * 99})
    whole = bytearray(path.read_bytes())
    whole[6] |= 1  # the bit that says so, of the entry
    whole[whole.index(b"PK\x01\x02") + 8] |= 1  # and of the directory
    path.write_bytes(whole)
    with pytest.raises(UserError, match=r"x\.zip: .*encrypted.*; unpack it yourself and give the folder"):
        unpack(path, home)


def test_a_full_disk_is_not_a_damaged_archive(tmp_path, home, monkeypatch):
    def full(*args, **more):
        raise OSError(28, "No space left on device")

    archives = [tar(tmp_path / "x.tgz"), zipped(tmp_path / "x.zip")]
    monkeypatch.setattr("tarfile.copyfileobj", full)
    monkeypatch.setattr("shutil.copyfileobj", full)
    for archive in archives:
        with pytest.raises(OSError, match="No space left"):
            unpack(archive, home)


def test_members_of_a_tar_are_read_in_place(tmp_path):
    path = tar(tmp_path / "a.tar", "w", extra=[tarfile.TarInfo("./Made/last")])
    found = tar_members(path)
    assert found.names == (*FILES, "Made/last")
    for i, content in enumerate([*FILES.values(), b""]):
        assert found.read(i) == content
    assert list(found.each([1, 0])) == [FILES["Made/images/a b.jpg"], FILES["Made/list.txt"]]
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"a\.tar: ends inside of Made/list\.txt; restore it"):
        found.read(0)
    path.unlink()
    with pytest.raises(UserError, match=r"a\.tar: cannot be read \(No such file or directory\); restore it"):
        found.read(0)


def test_a_tar_without_its_end_mark_is_read_with_a_warning(tmp_path, capsys):
    path = tar(tmp_path / "a.tar", "w", {"a": b"1", "b": b"2"})
    path.write_bytes(path.read_bytes()[:2048])  # a header and a block of each
    assert tar_members(path).names == ("a", "b")
    assert "a.tar ends without a tar's end mark; it may have been cut off" in capsys.readouterr().err


def test_where_the_index_cannot_be_kept_it_is_made_each_time(tmp_path, capsys):
    path = tar(tmp_path / "a.tar", "w", {"a": b"1"})
    (tmp_path / "file").write_text("")
    for _ in range(2):
        assert tar_members(path, str(tmp_path / "file/index")).names == ("a",)
    assert capsys.readouterr().err.count("the index of a tar is not kept") == 2
    assert tar_members(path, str(tmp_path / "index")).names == ("a",)
    (kept,) = (tmp_path / "index").iterdir()
    kept.write_bytes(b"damaged")
    assert tar_members(path, str(tmp_path / "index")).read(0) == b"1"
