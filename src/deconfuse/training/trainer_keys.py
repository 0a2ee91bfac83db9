"""The arguments of Lightning's Trainer that users can't set, listed without importing Lightning."""

EPOCHS = "recipe.epochs=N says how long is trained"
VALIDATE = "recipe.validate_every=N says when R@1 is measured, on all queries and the whole gallery"
WRITES = "output_dir=FOLDER and recipe.checkpoints say what is written where"
SAMPLES = "recipe.classes_per_batch, recipe.per_class and recipe.sampling say what is in an epoch"
# Arguments that training sets itself, or that would undo what it sets, and the keys to use instead.
OURS = {
    "max_epochs": EPOCHS,
    "min_epochs": EPOCHS,
    "max_steps": EPOCHS,
    "min_steps": EPOCHS,
    "max_time": EPOCHS,
    "fast_dev_run": "recipe.epochs=1 is a short try",
    "barebones": "recipe.epochs=1 is a short try",
    "overfit_batches": SAMPLES,
    "reload_dataloaders_every_n_epochs": SAMPLES,
    "use_distributed_sampler": "trainer=ddp shares each batch among the processes",
    "gradient_clip_val": "recipe.clip_norm=X or recipe.clip_value=X clips gradients",
    "gradient_clip_algorithm": "recipe.clip_norm=X clips by the norm, recipe.clip_value=X by the value",
    "check_val_every_n_epoch": VALIDATE,
    "val_check_interval": VALIDATE,
    "limit_val_batches": VALIDATE,
    "num_sanity_val_steps": VALIDATE,
    "logger": "logger=csv, wandb or none follows the training",
    "default_root_dir": WRITES,
    "enable_checkpointing": WRITES,
    "callbacks": "recipe.checkpoints, influence.when and logger= say what happens besides training",
    "plugins": "trainer.precision and trainer.strategy choose among Lightning's plugins",
    "enable_progress_bar": "DECONFUSE_PROGRESS=0 or 1 in the environment turns bars off or on",
    "enable_model_summary": "no summary of layers is printed",
}


def refusal(name: str) -> str:
    """The error message for a user who sets one of them."""
    return f"trainer.{name} is not set there: {OURS[name]}; leave trainer.{name} out"
