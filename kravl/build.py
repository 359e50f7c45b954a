"""Build an object from a config node: only a class of ours, or of a package named on the command line.

Hydra's own ``instantiate`` runs whatever a config names; a config that someone sends must not be able to.
"""

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from kravl.errors import InputError, unknown

T = TypeVar("T")


def resolve(node: Mapping[str, Any], contract: type[T], plugins: Sequence[str] = ()) -> type[T]:
    """The class that ``node["_target_"]`` names.

    Args:
        contract: the class that it must derive from.
        plugins: packages besides kravl that may be imported.

    Raises:
        InputError: no such class, one of another package, or one that does not fulfil the contract.
    """
    target = str(node.get("_target_", ""))
    allowed = ("kravl", *plugins)
    module_name, _, name = target.rpartition(".")
    if module_name.split(".")[0] not in allowed:
        raise InputError(f"_target_ {target!r} is outside {allowed}; name its package with plugins=[...] to allow it")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise InputError(f"_target_ {target!r}: {error}") from error
    classes = {n for n, value in vars(module).items() if _fulfils(value, contract, allowed)}
    if name not in classes:
        raise unknown(f"{contract.__name__} in {module_name}", name, classes)
    return getattr(module, name)


def _fulfils(value: object, contract: type, allowed: Sequence[str]) -> bool:
    # asked of the object, not of the string: an alias of a foreign class has a foreign __module__
    return (
        isinstance(value, type)
        and issubclass(value, contract)
        and not inspect.isabstract(value)
        and value.__module__.split(".")[0] in allowed
    )


def build(node: Mapping[str, Any], contract: type[T], plugins: Sequence[str] = (), **given: Any) -> Callable[..., T]:
    """A constructor of what ``node`` describes, its settings and ``given`` filled in; call it with what is left.

    ``given`` holds what only the run knows (a training source); what the class does not take is left out.

    Raises:
        InputError: as `resolve`, or a setting that the class does not have.
    """
    cls = resolve(node, contract, plugins)
    legal = inspect.signature(cls).parameters
    settings = {key: value for key, value in node.items() if key not in ("_target_", "_partial_")}
    for key in settings:
        if key not in legal:
            raise unknown(f"setting of {cls.__name__}", key, legal)
    return functools.partial(cls, **settings, **{key: value for key, value in given.items() if key in legal})
