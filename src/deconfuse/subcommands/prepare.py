"""Unpack a data set and check that it is whole: deconfuse prepare cub CUB_200_2011.tgz [--into data].

Takes the archives and files that the authors distribute, or a folder that is unpacked already. The images and
classes that were read are counted; it is an error if there are fewer than the authors list.
"""

import argparse
import ast
import importlib
import pkgutil
import shlex
import shutil
from pathlib import Path

from deconfuse import dataset
from deconfuse.data.build import build
from deconfuse.data.layout import counts
from deconfuse.data.split import Split
from deconfuse.system.archive import unpack
from deconfuse.system.errors import UserError, invoked, one_of
from deconfuse.system.files import whole_folder


def names() -> list[str]:
    """The data sets that can be prepared: those whose module has a LAYOUT.

    The modules' text is parsed and none is imported, as some import libraries that take seconds to load.
    """
    modules = pkgutil.iter_modules(dataset.__path__)
    return [
        each.name for each in modules if _has_layout(Path(each.module_finder.find_spec(each.name).origin))
    ]


def _has_layout(file: Path) -> bool:
    """Whether a module assigns LAYOUT at its top level."""
    body = ast.parse(file.read_text("utf-8")).body
    targets = [target for node in body if isinstance(node, ast.Assign) for target in node.targets]
    return any(isinstance(target, ast.Name) and target.id == "LAYOUT" for target in targets)


def main(words: list[str]) -> None:
    """Unpack if necessary and check; print the number of images and the next command."""
    parser = argparse.ArgumentParser(prog=invoked("prepare"), description=__doc__)
    parser.add_argument("dataset", help=", ".join(names()))
    parser.add_argument("paths", nargs="+", type=Path, help="its archives and files, or its unpacked folder")
    parser.add_argument("--into", default="data", type=Path, help="where its folder is made (data)")
    args = parser.parse_args(words)
    one_of("data set", args.dataset, names())
    for path in args.paths:
        if not path.exists():
            raise UserError(f"{path.absolute()}: no such file or folder")
    folders = [path for path in args.paths if path.is_dir()]
    if folders and len(args.paths) > 1:
        raise UserError(f"{folders[0]} is a folder: give either one unpacked folder or archives")
    option = importlib.import_module(f"{dataset.__name__}.{args.dataset}")
    if folders:
        root = option.LAYOUT.locate(folders[0])
        split = checked(option, root)
    else:
        root = args.into / option.LAYOUT.folder
        split = install(option, args.paths, root)
    print(f"{args.dataset} in {root}")
    for part, (images, classes) in counts(split).items():
        print(f"  {part:<8}{images:>7,} images of {classes:>6,} classes")
    place = shlex.quote(f"dataset.root={root}")
    print(f"whole: {invoked('run')} dataset={args.dataset} {place} model=resnet50 recipe=photo")


def checked(option, root: Path) -> Split:
    """The data set as it is loaded from root; UserError where images or classes are missing."""
    split = build(option.load(str(root)), on_bad_image="later")  # what is missing is counted below
    option.LAYOUT.check(root, split)
    return split


def install(option, archives: list[Path], target: Path) -> Split:
    """Unpack into a temporary folder, check it, and rename it to the target; nothing is kept on failure."""
    if target.exists():
        raise UserError(
            f"{target} is there already; check it with {invoked('prepare')} {option.LAYOUT.dataset} "
            f"{shlex.quote(str(target))}, or move it away, or choose another place with --into FOLDER"
        )
    for archive in archives:  # so that a file that can't be read is not reported as a full disk
        try:
            archive.open("rb").close()
        except OSError as error:
            raise UserError(f"{archive}: can't be read ({error.strerror}); fetch it again") from None
    with whole_folder(target, "--into FOLDER") as partial:
        unpacked = partial / ".unpacked"
        unpacked.mkdir()
        try:
            for archive in archives:
                unpack(archive, unpacked)
            root = option.LAYOUT.locate(unpacked)
            split = checked(option, root)
        except UserError as error:
            # The temporary folder is deleted then, so the message names the archive instead.
            source = archives[0].name if len(archives) == 1 else "the archives"
            raise UserError(
                str(error).replace(str(unpacked.absolute()), source).replace(str(unpacked), source)
            ) from None
        for path in root.iterdir():
            path.rename(partial / path.name)
        shutil.rmtree(unpacked)
    return split
