"""Unpack a data set and check that it is whole: deconfuse prepare cub CUB_200_2011.tgz [--into data].

Takes the archives and files that the authors distribute, or a folder that is unpacked already. What was
read is counted: fewer images or classes than the authors' are an error.
"""

import argparse
import shlex
import shutil
from pathlib import Path

from deconfuse.data.archive import unpack
from deconfuse.data.layout import counts
from deconfuse.data.split import Split
from deconfuse.dataset import cars, cub, inshop, sop
from deconfuse.system.errors import UserError, invoked, one_of
from deconfuse.system.files import whole_folder

DATASETS = {"cars": cars, "cub": cub, "inshop": inshop, "sop": sop}


def main(words: list[str]) -> None:
    """Check, and unpack where that is needed; print what was found and the command to go on with."""
    parser = argparse.ArgumentParser(prog=invoked("prepare"), description=__doc__)
    parser.add_argument("dataset", help=", ".join(DATASETS))
    parser.add_argument("paths", nargs="+", type=Path, help="its archives and files, or its folder")
    parser.add_argument("--into", default="data", type=Path, help="where its folder is made (data)")
    args = parser.parse_args(words)
    one_of("data set", args.dataset, DATASETS)
    for path in args.paths:
        if not path.exists():
            raise UserError(f"{path.absolute()}: no such file or folder")
    folders = [path for path in args.paths if path.is_dir()]
    if folders and len(args.paths) > 1:
        raise UserError(f"{folders[0]} is a folder: give either one unpacked folder or archives")
    option = DATASETS[args.dataset]
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
    """The data set as the project reads it; UserError unless it is all of it."""
    split = option.load(str(root), on_bad_image="later")  # what is missing is counted below
    option.LAYOUT.check(root, split)
    return split


def install(option, archives: list[Path], target: Path) -> Split:
    """Unpack beside the target, check, and only then take its name. Nothing is kept where that fails."""
    if target.exists():
        raise UserError(
            f"{target} is there already; check it with {invoked('prepare')} {option.LAYOUT.dataset} "
            f"{shlex.quote(str(target))}, or move it away, or choose another place with --into FOLDER"
        )
    for archive in archives:  # what can't be read is not the disk's fault that is written to
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
            # The folder is gone when this is read: say which archive its files are from.
            source = archives[0].name if len(archives) == 1 else "the archives"
            raise UserError(
                str(error).replace(str(unpacked.absolute()), source).replace(str(unpacked), source)
            ) from None
        for path in root.iterdir():
            path.rename(partial / path.name)
        shutil.rmtree(unpacked)
    return split
