import shlex

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import MissingConfigException
from hydra.types import RunMode
from hydra.utils import instantiate
from joblib.externals.loky.process_executor import TerminatedWorkerError
from omegaconf import OmegaConf
from torch._utils import ExceptionWrapper

from deconfuse.data import build
from deconfuse.data.images import FileImages
from deconfuse.launch.command_line import CONF, explain
from deconfuse.system.errors import UserError

RECIPE_KEYS = (
    "checkpoints, classes_per_batch, clip_norm, clip_value, compile, dropout, embedding_size, epochs, "
    "eval_batch_size, freeze_batchnorm, frozen, hold, lr_backbone, lr_head, lr_proxies, optimizer, "
    "per_class, sampling, schedule, step_epochs, step_factor, validate_every, warmup_epochs, whiten"
)


def composed(*words):
    """The configuration of a command line, from the project's own folder."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=list(words))


def resolved(*words):
    return OmegaConf.to_container(composed(*words), resolve=True, throw_on_missing=True)


def error_of(call, *words):
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - any kind; the text is asserted below
        call(*words)
    return caught.value


def told(*words):
    """What the user reads after a command line that cannot be composed."""
    message, code = explain(error_of(resolved, *words), list(words))
    assert code == 1
    assert message.startswith("error: ")
    assert "\n" not in message
    return message.removeprefix("error: ")


# --- a choice


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("loss=softripl", "there is no loss=softripl; did you mean softtriple? Valid: "),
        ("dataset=gliphs", "there is no dataset=gliphs; did you mean glyphs? Valid: "),
        ("noise=flip_30", "there is no noise=flip_30; did you mean flip_20? Valid: "),
        ("experiment=basline", "there is no experiment=basline; did you mean baseline? Valid: "),
        ("model=xyz", "there is no model=xyz; Valid: "),
    ],
)
def test_a_misspelt_choice_lists_the_valid_ones_and_the_nearest(word, message):
    group = word.partition("=")[0]
    assert told(word) == message + ", ".join(sorted(path.stem for path in (CONF / group).glob("*.yaml")))


def test_a_misspelt_choice_among_good_words_is_the_one_named():
    assert told("seed=3", "loss=softripl", "recipe.epochs=2").startswith(
        "there is no loss=softripl; did you mean"
    )


@pytest.mark.parametrize("word", ["dataset=null", "loss=3"])
def test_a_choice_that_is_no_word_is_told_without_a_traceback(word):
    message, code = explain(error_of(resolved, word), [word])
    assert code == 1
    assert (message or "no message").startswith("error: ")
    assert word.partition("=")[0] in message


# --- a key


def test_a_misspelt_key_at_the_top_is_answered_with_the_nearest_and_all():
    text = told("neighbors=3")
    start, _, valid = text.partition("Valid: ")
    assert start == "there is no key neighbors; did you mean neighbours? "
    assert set(composed()) <= set(valid.split(", "))


def test_a_misspelt_choice_group_is_answered_with_the_nearest():
    assert told("los=softtriple").startswith("there is no key los; did you mean loss? Valid: ")


def test_a_misspelt_experiment_is_answered_with_the_nearest():
    # It is a choice, but no key of the composed configuration.
    assert told("experimnt=baseline").startswith(
        "there is no key experimnt; did you mean experiment? Valid: "
    )


def test_a_misspelt_key_inside_a_choice_is_answered_with_its_neighbours():
    assert told("recipe.epoch=3") == (
        f"there is no key recipe.epoch; did you mean epochs? Valid: {RECIPE_KEYS} (in recipe)"
    )


def test_a_misspelt_key_two_levels_down_is_answered_with_its_neighbours():
    assert told("recipe.optimizer.weight_deca=1") == (
        "there is no key recipe.optimizer.weight_deca; did you mean weight_decay? Valid: weight_decay "
        "(in recipe.optimizer)"
    )


@pytest.mark.parametrize("word", ["influence.radius=0.1", "influence.radus=0.1"])
def test_a_key_that_lies_one_level_deeper_is_found_there(word):
    key = word.partition("=")[0]
    assert told(word).startswith(f"there is no key {key}; did you mean path.radius? Valid: ")


def test_a_near_key_at_the_level_itself_goes_before_those_below_it():
    # step_epochs is near, and no key below recipe.optimizer is asked.
    assert "did you mean step_epochs?" in told("recipe.step_epoch=1")
    assert "did you mean optimizer.weight_decay?" in told("recipe.weight_decay=1")
    assert "did you mean" not in told("recipe.xyzzy=1")


def test_the_valid_keys_are_those_of_the_chosen_option():
    assert told("dataset=folder", "dataset.rot=x") == (
        "there is no key dataset.rot; did you mean root? Valid: augment, background, channels, image_resize, "
        "image_size, layout, on_bad_image, on_small_class, root, seed, test_classes, value_range (in dataset)"
    )
    assert "Valid: augment, classes, image_size, seed (in dataset)" in told("dataset.root=x")


def test_a_misspelt_group_of_a_key_is_answered_with_the_nearest_group():
    assert told("recip.epochs=3").startswith(
        "there is no key recip.epochs; did you mean recipe? Valid: again, candidates, counterfactual, "
    )


def test_a_misspelt_middle_of_a_key_is_answered_with_the_nearest_at_its_level():
    assert "did you mean optimizer?" in told("recipe.optimzer.weight_decay=1")


def test_a_key_below_a_number_is_no_key():
    assert told("seed.foo.bar=3").startswith("there is no key seed.foo.bar; ")


@pytest.mark.parametrize("sweep", ["loss=softtriple,proxynca", "loss=choice(softtriple)", "dataset=glob(*)"])
def test_a_misspelt_key_in_a_sweep_over_choices_is_still_told(sweep):
    # The sweep's own words reach explain where its jobs are checked before the first one starts.
    error = error_of(resolved, "recipe.epoch=3")
    message, code = explain(error, ["-m", sweep, "recipe.epoch=3"])
    assert code == 1
    assert message.startswith("error: there is no key recipe.epoch; did you mean epochs? Valid: ")


def test_words_that_hydra_cannot_read_are_told_in_a_line():
    assert "recipe.epochs" in told("recipe.epochs")
    told("recipe.epochs=[")
    assert told("photos") == "photos is not KEY=VALUE"
    assert told("noise=none", "photos") == (
        'photos is not KEY=VALUE (a space in a value is written "noise=none photos")'
    )
    told("seed='")


@pytest.mark.parametrize(
    ("word", "typed"),
    [
        ("dataset.augment=a (b)", "\"dataset.augment='a (b)'\""),
        ("dataset.augment=été", "\"dataset.augment='été'\""),
        ("dataset.seed=3=4", "\"dataset.seed='3=4'\""),
        ("+dataset.test_classes=[a (1),b,[c]]", "\"+dataset.test_classes=['a (1)',b,'[c]']\""),
        ('dataset.augment=a"(b', "'dataset.augment='\"'\"'a\"(b'\"'\"''"),
    ],
)
def test_a_value_that_hydras_grammar_refuses_is_told_with_its_quotes(word, typed):
    text = told(word)
    assert text == (
        f"{word}: a value with ( ) = ' or letters beyond ASCII is given in quotes inside the shell's: {typed}"
    )
    (again,) = shlex.split(typed)
    composed(again)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (
            "seed=0,1",
            "seed=0,1 are several values; add -m to sweep over them (or, for a key that takes a list, "
            '"seed=[0,1]")',
        ),
        ("seed=range(0,3)", "seed=range(0,3) are several values; add -m to sweep over them"),
        ("dataset=glyphs,cub", "dataset=glyphs,cub are several values; add -m to sweep over them"),
    ],
)
def test_several_values_outside_of_a_sweep_are_told_how_to_sweep(word, message):
    error = error_of(lambda: swept_outside(word))
    assert explain(error, [word]) == (f"error: {message}", 1)


def swept_outside(word):
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        GlobalHydra.instance().config_loader().load_configuration("config", [word], RunMode.RUN)


def test_a_key_of_the_trainer_that_is_set_elsewhere_is_told_where():
    assert told("trainer.max_epochs=9") == (
        "trainer.max_epochs is not set there: recipe.epochs=N says how long is trained; leave "
        "trainer.max_epochs out"
    )


def test_the_interpolation_that_leads_nowhere_is_named():
    assert told("seed=${nope}") == "Interpolation key 'nope' not found"


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("hydra/launcher/joblib", "hydra/launcher=joblib needs a plugin: pip install 'deconfuse[parallel]'"),
        (
            "hydra/launcher/submitit_slurm",
            "hydra/launcher=submitit_slurm needs a plugin: pip install 'deconfuse[slurm]'",
        ),
        ("hydra/launcher/basik", "there is no hydra/launcher=basik; did you mean basic? Valid: basic"),
    ],
)
def test_a_launcher_that_is_not_installed_or_not_known_is_told(file, message):
    assert explain(MissingConfigException("not there", file, ["basic"]), []) == (f"error: {message}", 1)


# --- a value


@pytest.mark.parametrize(
    ("word", "key"),
    [("dataset=folder", "dataset.root"), ("model=timm", "model.name"), ("dataset=table", "dataset.csv")],
)
def test_a_missing_value_is_named_as_it_is_given(word, key):
    assert told(word) == f"{key} has no default; give it as {key}=VALUE"


def test_a_value_missing_at_instantiation_is_named_as_it_is_given():
    error = error_of(lambda: build.load(composed("dataset=folder").dataset))
    assert explain(error, []) == ("error: dataset.root has no default; give it as dataset.root=VALUE", 1)


@pytest.mark.parametrize(
    ("group", "words", "message"),
    [
        ("recipe", ["recipe.epochs=0"], "recipe.epochs=0 is too small; give 1 or more"),
        ("recipe", ["recipe.per_class=0"], "recipe.per_class=0 is too small; give 1 or more"),
        ("recipe", ["recipe.lr_head=a"], "recipe.lr_head=a is not a number"),
    ],
)
def test_a_users_error_inside_an_instantiation_is_told_as_it_is(group, words, message):
    error = error_of(lambda: instantiate(composed(*words)[group]))
    assert type(error).__name__ == "InstantiationException"
    assert explain(error, words) == (f"error: {message}", 1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dataset.classes=3"], "dataset.classes=3 is too small; give 4 or more"),
        (["+dataset.sead=3"], "there is no key dataset.sead; did you mean seed? Valid: "),
        (
            ["dataset.classes=4", "+dataset.on_bad_image=skip"],
            "dataset.on_bad_image has no meaning for dataset glyphs; leave it out",
        ),
    ],
)
def test_a_users_error_about_a_data_set_is_told_as_it_is(words, message):
    told, code = explain(error_of(lambda: build.load(composed(*words).dataset)), words)
    assert code == 1
    assert told.startswith(f"error: {message}")


def test_another_error_inside_an_instantiation_names_the_place():
    error = error_of(lambda: instantiate(composed("+recipe.epoch=3").recipe))
    message, code = explain(error, ["+recipe.epoch=3"])
    assert code == 1
    reason = "Recipe.__init__() got an unexpected keyword argument 'epoch'"
    assert message == f"error: recipe: {reason} (check the keys under recipe)"


def test_a_target_that_does_not_exist_names_the_place():
    words = ["recipe.optimizer._target_=torch.optim.Nope"]
    message, code = explain(error_of(lambda: instantiate(composed(*words).recipe)), words)
    assert code == 1
    assert message.startswith("error: recipe.optimizer: ")
    assert "Nope" in message
    assert "\n" not in message


# --- everything else


def test_a_users_error_is_one_line():
    assert explain(UserError("a.png: not a readable image; replace it"), []) == (
        "error: a.png: not a readable image; replace it",
        1,
    )


def test_a_users_error_from_a_loaders_worker_process_is_one_line(tmp_path):
    (tmp_path / "bad.png").write_text("text")
    images = FileImages([tmp_path / "bad.png"])
    alone = error_of(lambda: images[0])
    try:
        images[0]
    except UserError:
        # What a worker sends, and what the loader makes of it in the main process.
        wrapped = ExceptionWrapper(where="in DataLoader worker process 0")
    error = error_of(wrapped.reraise)
    assert str(error).startswith("Caught UserError in DataLoader worker process 0.\nOriginal Traceback")
    assert explain(error, []) == explain(alone, []) == (f"error: {alone}", 1)


def test_an_empty_users_error_is_still_told():
    assert explain(UserError(""), []) == ("error: unknown", 1)


def test_an_interrupt_says_how_to_go_on_and_ends_with_130():
    message, code = explain(KeyboardInterrupt(), [])
    assert code == 130
    assert message == "\ninterrupted; the same command goes on after the last whole epoch"


def test_a_process_that_was_killed_is_told_with_what_to_do():
    message, code = explain(TerminatedWorkerError("exit codes {SIGKILL(-9)}"), [])
    assert code == 1
    assert message.startswith("error: a job's process was killed, ")
    assert "the same command goes on" in message


@pytest.mark.parametrize("error", [ValueError("x"), ZeroDivisionError(), RuntimeError("CUDA"), SystemExit(3)])
def test_an_error_that_is_not_the_users_keeps_its_traceback(error):
    assert explain(error, ["seed=3"]) == (None, 1)


# --- memory


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 1 has a total capacity of 79.11 GiB of "
                "which 1.2 GiB is free. Process 7 has 77 GiB memory in use."
            ),
            "2.50 GiB more are not free on GPU 1, which has 79.11 GiB",
        ),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:127] data. DefaultCPUAllocator: can't allocate memory: you "
                "tried to allocate 5368709120 bytes. Error code 12 (Cannot allocate memory)"
            ),
            "5.0 GiB more are not free on this machine",
        ),
        (MemoryError(), "no more is free"),
    ],
)
def test_full_memory_is_one_line_that_says_what_takes_less(error, said):
    message, code = explain(error, [])
    assert code == 1
    assert message.startswith(f"error: out of memory: {said}; smaller batches take less (recipe.classes_per")
    assert "\n" not in message


def test_torch_says_that_the_machine_is_full_in_the_words_that_are_looked_for():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert "GiB more are not free on this machine" in explain(caught.value, [])[0]


def test_another_error_of_torch_is_a_bug():
    assert explain(RuntimeError("mat1 and mat2 shapes cannot be multiplied"), []) == (None, 1)
