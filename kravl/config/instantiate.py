"""Build an object from a config node: only a class of kravl, or of a package named on the command line.

Hydra's own ``instantiate`` runs whatever a config names; a config from somebody else must not be able to run code.
"""

import functools
import importlib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from kravl.runtime.errors import InputError, unknown

T = TypeVar("T")
SHOWN = 80
MODULE = re.compile(r"\w+(\.\w+)*")
# modules of 0.1.0, which the config.yaml of its runs still names -> their present names; until 1.0
MOVED = {
    "kravl.approximation.noise": "kravl.analysis.approximation.synthetic",
    "kravl.approximation.spectral": "kravl.analysis.approximation.synthetic",
    "kravl.approximation.stored": "kravl.analysis.approximation.stored",
    "kravl.approximation.structured": "kravl.analysis.approximation.synthetic",
    "kravl.approximation.wave": "kravl.analysis.approximation.synthetic",
    "kravl.data.array_set": "kravl.data.sources.arrays",
    "kravl.data.class_half": "kravl.data.sources.class_half",
    "kravl.data.corruptions": "kravl.data.corruptions.source",
    "kravl.data.cub200": "kravl.data.sources.cub200",
    "kravl.data.digits": "kravl.data.sources.digits",
    "kravl.data.domains": "kravl.data.sources.domains",
    "kravl.data.folder": "kravl.data.sources.folder",
    "kravl.data.hugging_face": "kravl.data.sources.hugging_face",
    "kravl.data.imagenet": "kravl.data.sources.imagenet",
    "kravl.data.list_files": "kravl.data.sources.list_files",
    "kravl.data.objectnet": "kravl.data.sources.objectnet",
    "kravl.data.openmoji": "kravl.data.sources.openmoji.source",
    "kravl.data.random_holdout": "kravl.data.sources.random_holdout",
    "kravl.data.split_file": "kravl.data.sources.split_file",
    "kravl.data.table": "kravl.data.sources.table",
    "kravl.data.torchvision_set": "kravl.data.sources.torchvision",
    "kravl.data.voc2007": "kravl.data.sources.voc2007",
}


def resolve(node: Mapping[str, Any], contract: type[T], plugins: Sequence[str] = ()) -> type[T]:
    """The class that ``node["_target_"]`` names.

    Args:
        contract: the class that it must derive from.
        plugins: packages besides kravl that may be imported.

    Raises:
        InputError: no such class, one of another package, or one that does not fulfil the contract.
    """
    target = str(node.get("_target_", ""))[:SHOWN]
    allowed = ("kravl", *plugins)
    module_name, _, name = target.rpartition(".")
    module_name = MOVED.get(module_name, module_name)
    if module_name.split(".")[0] not in allowed or not MODULE.fullmatch(module_name):
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
    # checked on the object, not on the string: an alias of another package's class keeps its __module__
    return (
        isinstance(value, type)
        and issubclass(value, contract)
        and not inspect.isabstract(value)
        and value.__module__.split(".")[0] in allowed
    )


def build(node: Mapping[str, Any], contract: type[T], plugins: Sequence[str] = (), **given: Any) -> Callable[..., T]:
    """A constructor of what ``node`` describes, its settings and ``given`` bound; call it with the remaining arguments.

    ``given`` holds what only the run knows (a training source); arguments that the class does not take, and those
    that ``node`` has, are dropped.

    Raises:
        InputError: as `resolve`, a setting that the class does not have, or one of another type; at the call, one that
            is missing.
    """
    cls = resolve(node, contract, plugins)
    legal = inspect.signature(cls).parameters
    types = get_type_hints(cls.__init__)
    settings = {key: value for key, value in node.items() if key not in ("_target_", "_partial_")}
    for key, value in settings.items():
        if key not in legal:
            raise unknown(f"setting of {cls.__name__}", key, legal)
        if not fits(value, types.get(key, Any)):
            kind = inspect.formatannotation(types[key])
            raise InputError(f"{key}={str(value)[:SHOWN]!r} of {cls.__name__} is {type(value).__name__}, not {kind}")
    known = {key: value for key, value in given.items() if key in legal}
    return functools.partial(_make, cls, **(known | settings))


def _make(cls: type[T], /, *arguments: Any, **settings: Any) -> T:
    try:
        inspect.signature(cls).bind(*arguments, **settings)
    except TypeError as error:
        raise InputError(f"{cls.__name__}: {error}") from error
    return cls(*arguments, **settings)


def fits(value: object, annotation: Any) -> bool:
    """Whether a value from a config is of the annotated type; True for annotations that are not checked."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return any(fits(value, part) for part in parts)
    if origin is not None and isinstance(origin, type):  # Sequence[str], Mapping[str, Any]
        if not isinstance(value, origin) or isinstance(value, str):
            return False
        if isinstance(value, Mapping):
            return all(fits(k, parts[0]) and fits(v, parts[1]) for k, v in value.items())
        return all(fits(item, parts[0]) for item in value) if isinstance(value, Sequence) else True
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation in (int, str, bool, NoneType):
        return type(value) is annotation
    return True
