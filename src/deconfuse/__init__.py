"""deconfuse: which training samples, and which labels, make an embedding model confuse two classes.

    import deconfuse as dc
    found = dc.explain(train=(embeddings, labels), test=(embeddings, labels))

What is offered here is imported when it is first used, as torch and Lightning take seconds to import.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deconfuse import influence, retrieval
    from deconfuse.api import callbacks
    from deconfuse.api.explain import explain
    from deconfuse.api.found import Found
    from deconfuse.api.steps import relabel
    from deconfuse.system.errors import UserError

__version__ = "0.1.0"
__all__ = ["Found", "UserError", "__version__", "callbacks", "explain", "influence", "relabel", "retrieval"]

HERE = Path(__file__).resolve().parent
# Every choice and number: in a wheel beside the code, in a checkout at the top of the repository.
CONF = HERE / "conf" if (HERE / "conf").is_dir() else HERE.parents[1] / "conf"

_FACE = {  # name: the module that has it; the module itself where the name is its own
    "UserError": "deconfuse.system.errors",
    "explain": "deconfuse.api.explain",
    "Found": "deconfuse.api.found",
    "relabel": "deconfuse.api.steps",
    "callbacks": "deconfuse.api.callbacks",
    "influence": "deconfuse.influence",
    "retrieval": "deconfuse.retrieval",
}


def __getattr__(name: str) -> Any:
    """Import a name of the public face (PEP 562)."""
    if name not in _FACE:
        raise AttributeError(f"module 'deconfuse' has no attribute {name!r}")
    module = import_module(_FACE[name])
    if name != "UserError":
        import_module("deconfuse.api.steps")  # lets the modules of influence and retrieval be called
    return (
        module
        if module.__name__.endswith(f".{name}") and not hasattr(module, name)
        else getattr(module, name)
    )


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
