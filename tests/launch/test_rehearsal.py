import numpy as np
import pytest

from deconfuse.data.build import build
from deconfuse.data.images import FeatureRows
from deconfuse.data.listing import Listing
from deconfuse.data.split import ImageSpec, RowSpec
from deconfuse.launch.rehearsal import answerable, input_size, lopsided, of_its_table
from deconfuse.model.identity import Identity
from deconfuse.model.small_cnn import SmallCNN
from deconfuse.system.errors import UserError

CHOICES = {"dataset": "mine", "model": "yours"}


def test_a_model_is_told_how_large_its_input_is():
    assert input_size(ImageSpec(16, 1, "none"), SmallCNN, CHOICES) == ImageSpec(16, 1, "none").model_size
    assert input_size(RowSpec(7), Identity, CHOICES) == RowSpec(7).model_size


@pytest.mark.parametrize(
    ("spec", "model", "message"),
    [
        (
            RowSpec(7),
            SmallCNN,
            "dataset=mine has no images for model=yours; add model=identity or",
        ),
        (ImageSpec(16, 1, "none"), Identity, "dataset=mine has images, which model=yours does not take"),
    ],
)
def test_a_model_that_takes_another_kind_of_input_is_named(spec, model, message):
    with pytest.raises(UserError, match=message):
        input_size(spec, model, CHOICES)


@pytest.mark.parametrize(
    ("experiment", "flipped", "what"),
    [
        ("figure2", False, "flipped labels"),
        ("detection", False, "flipped labels"),
        ("table5", True, "labels as they are"),
        ("figure1", True, "labels as they are"),
        ("table2", True, ""),
        ("table5", False, ""),
        ("table1_pairs", True, ""),
        (None, False, ""),
    ],
)
def test_a_run_that_its_experiments_table_leaves_out_is_told(experiment, flipped, what, capsys):
    of_its_table(experiment, flipped)
    line = f"warning: experiment={experiment} takes runs with {what}: this run will not be in its table\n"
    assert capsys.readouterr().err == (line if what else "")


@pytest.mark.parametrize(
    ("sizes", "sampling", "said"),
    [
        ([6, 2, 1, 3], "instance_balanced", ""),  # half, but twice the next
        ([1, 6, 2, 2], "instance_balanced", "55% of the training images are of one class, b;"),
        ([1, 6, 2, 2], "class_balanced", ""),
        ([2, 6, 2, 3], "instance_balanced", ""),
        ([6], "instance_balanced", ""),
    ],
)
def test_one_class_that_has_most_images_is_named(sizes, sampling, said, capsys):
    lopsided(np.repeat(np.arange(len(sizes)), sizes), "abcd", sampling)
    found = capsys.readouterr().err
    assert said in found
    assert bool(found) is bool(said)


def test_queries_that_all_lack_their_class_in_the_gallery_are_refused():
    def split(gallery):
        labels, parts = [*"aabbccdd", *gallery], ["train"] * 4 + ["query"] * 4 + ["gallery"] * len(gallery)
        rows, names = FeatureRows(np.eye(len(labels))), [f"{i}.png" for i in range(len(labels))]
        return build(Listing(rows, labels, parts, names, "made"), on_small_class="keep")

    answerable(split("ce"))  # two of four queries have one
    with pytest.raises(UserError, match=r"^none of 4 queries has another image of its class in the"):
        answerable(split("ef"))
