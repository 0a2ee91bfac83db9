"""Stanford Online Products: 120,053 photos of 22,634 things on sale (Song et al., CVPR 2016).

The authors' split: 11,318 classes train (59,551 images), 11,316 others test (60,502).
"""

from pathlib import Path

from deconfuse.data.images import FileImages
from deconfuse.data.layout import Layout, confined, fields, lines
from deconfuse.data.listing import Listing
from deconfuse.system.errors import UserError

LAYOUT = Layout(
    "sop",
    "Stanford_Online_Products",
    (("Ebay_train.txt", "Ebay_test.txt"),),
    "Stanford_Online_Products.zip from https://cvgl.stanford.edu/projects/lifted_struct/",
    {"train": (59551, 11318), "test": (60502, 11316)},
)


def load(
    root: str,
) -> Listing:
    """Read the folder Stanford_Online_Products as its authors distribute it.

    A class is one thing on sale, named by its category and number, such as "bicycle 1".
    Raises UserError, naming the folder and the files it needs, if one is missing.
    """
    train, test = LAYOUT.find(root)
    rows = [(*row, "train") for row in _rows(train)] + [(*row, "test") for row in _rows(test)]
    names = [name for name, _, _ in rows]
    images = FileImages([train.parent / name for name in names])
    return Listing(
        images,
        [label for _, label, _ in rows],
        [part for _, _, part in rows],
        names,
        source=f"dataset sop in {root}",
        recall_at=(1, 10, 100, 1000),
    )


def _rows(path: Path) -> list[tuple[str, str]]:
    """(image, class) of each line 'image_id class_id super_class_id path' after the header."""
    header, *text = lines(path) or [""]
    if not header.startswith("image_id"):
        raise UserError(
            f"{path}: the first line must be 'image_id class_id super_class_id path'; unpack again"
        )
    found = fields(path, text, "image_id", "class_id", "super_class_id", "path")
    confined(path, (name for *_, name in found))
    return [(name, f"{name.split('/')[0].removesuffix('_final')} {label}") for _, label, _, name in found]
