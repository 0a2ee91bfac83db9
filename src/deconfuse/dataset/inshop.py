"""In-shop Clothes Retrieval of DeepFashion: 52,712 photos of 7,982 items (Liu et al., CVPR 2016).

The authors' protocol: 3,997 items train (25,882 images); of 3,985 others, 14,218 query images look for
their item among 12,612 gallery images.
"""

from deconfuse.data.images import FileImages
from deconfuse.data.layout import Layout, confined, fields, lines
from deconfuse.data.listing import Listing, Reading
from deconfuse.system.errors import one_of

PARTITION = "list_eval_partition.txt"
LAYOUT = Layout(
    "inshop",
    "inshop",
    tuple((f"{lists}{PARTITION}", f"{home}img") for lists in ("Eval/", "") for home in ("Img/", "")),
    "img.zip and list_eval_partition.txt of the In-shop Clothes Retrieval Benchmark from "
    "https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion.html",
    {"train": (25882, 3997), "query": (14218, 3985), "gallery": (12612, 3985)},
)


def load(
    root: str,
) -> Listing:
    """Read the benchmark's folder as its authors distribute it.

    A class is an item (id_00000002), whatever categories its photos are filed under. Items with a single
    training image belong to the protocol, so they are kept.
    Raises UserError, naming the folder and the files it needs, if one is missing.
    """
    partition, home = LAYOUT.find(root)
    # The file begins with the number of rows and the names of the columns.
    text = [line for line in lines(partition) if not line.strip().isdigit() and "image_name" not in line]
    rows = fields(partition, text, "image_name", "item_id", "evaluation_status")
    for part in sorted({part for _, _, part in rows}):
        one_of(f"{partition}: split", part, LAYOUT.counts)
    names = confined(partition, (name for name, _, _ in rows))
    images = FileImages([home.parent / name for name in names])
    return Listing(
        images,
        [item for _, item, _ in rows],
        [part for _, _, part in rows],
        names,
        source=str(partition),
        recall_at=(1, 10, 20, 30, 40, 50),
        reading=Reading(on_small_class="keep"),
    )
