"""The command line as Hydra is to read it: a text setting is taken as typed, whatever is in it.

Hydra's grammar stops at an accent, takes ``a,b`` for two runs and ``2012_2013`` for a number. What a setting takes is
known here: from the schema, and below an open mapping from the classes that the config files name. Where that is text
the value is quoted. Hydra's own meaning is left to

- a value in quotes that the shell has kept: ``data.root='"a, b"'``;
- ``null`` where a setting may be null, and ``true`` and ``false`` where it may be that, too;
- the brackets of a list of texts, whose items are separated by commas and each as a value is;
- ``${...}``, another setting or a folder's variable; ``\\${`` is the text;
- under ``-m``, commas between values and a call such as ``choice(a,b)``: there a comma in a text needs the quotes.

A ``~`` or ``~/`` at the beginning is the home folder, which a shell replaces in few of these places.
"""

import ast
import importlib.util
import inspect
import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

from kravl.config.schema import CONFIGS, SCHEMAS
from kravl.runtime.errors import InputError

# the class that such a key goes to is its schema: any of its arguments may be given, listed in the YAML or not
CHECKED_WHEN_BUILT = ("trainer.", "loading.", "adapter.", "data.source.", "backbone.build.", "variants.")
IN_QUOTES = r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\""
QUOTED = re.compile(IN_QUOTES, re.DOTALL)
ITEM = re.compile(rf"\s*({IN_QUOTES})\s*(?:,|$)|([^,]*)(?:,|$)", re.DOTALL)
PLAIN = re.compile(r"(?!(?i:true|false|null|inf|nan)$)[A-Za-z/_][\w/.-]*", re.ASCII)  # Hydra reads it as it is
CALL = re.compile(r"(choice|glob|interval|range|shuffle|sort|tag)\(.*\)", re.DOTALL)
SHOWN = 80  # characters of an argument in an error
TEXT, TEXTS = "str", "list[str]"
SEQUENCES = ("Sequence[str]", "tuple[str, ...]", "Iterable[str]")
TARGET = re.compile(r"_target_:\s*(kravl\.[\w.]+)")


def quoted(key: str, text: str, literal: bool = True) -> str:
    """``key=text`` that Hydra reads as exactly this text; ``literal``: a ``${`` in it as well."""
    escaped = re.sub(r"(\\*)\$\{", r"\1\1\\${", text) if literal else text
    return f"{key}={_quote(escaped)}"


def as_overrides(arguments: Sequence[str], config_name: str, multirun: bool = False) -> list[str]:
    """Settings as they are typed, as Hydra takes them: its groups and numbers as they are, texts in quotes.

    Args:
        config_name: the verb's config, which tells what each setting takes.
        multirun: whether ``-m`` is given.

    Raises:
        InputError: an argument that is no ``key=value``.
    """
    return [_override(argument, SCHEMAS[config_name], multirun) for argument in arguments]


def _override(argument: str, schema: type, multirun: bool) -> str:
    if digits := re.search(r"\d{1000,}", argument):
        raise InputError(f"{argument[:40]!r}... has a number of {len(digits[0]):,} digits")
    if argument.startswith("~"):  # takes a setting away
        return argument
    key, sets, value = argument.partition("=")
    if not sets or not key.strip("+ "):
        shown = argument[:SHOWN]
        raise InputError(f"{shown!r} sets nothing; a setting is key=value: {_example(shown, schema)}")
    name = key.lstrip("+")
    if name.startswith(("hydra.", "hydra/")):
        return argument
    types = frozenset() if "@" in name or "/" in name or (CONFIGS / name).is_dir() else types_of(name, schema)
    if not types & {TEXT, TEXTS}:
        # what Hydra cannot read is at best a wrong name or number, and told as one; a list or mapping, by its mistake
        value = value if value[:1] in tuple("[{") or _reads(argument) else _quote(value)
    elif multirun:
        value = value if CALL.fullmatch(value) else ",".join(_value(v, types) for v in _swept(value, types))
    else:
        value = _value(value, types)
    return f"{'++' if argument.startswith(CHECKED_WHEN_BUILT) else ''}{key}={value}"


def _example(argument: str, schema: type) -> str:
    """What was probably meant by an ``argument`` without a value."""
    types = types_of(argument, schema)
    if not types and any(field.name == "run" for field in fields(schema)):
        return f"run={argument}"
    return f"{argument}={'true' if 'bool' in types else '...'}" if types else "overwrite=true"


def _value(value: str, types: frozenset[str]) -> str:
    """One value of a setting that takes text, or texts, and what else is in ``types``."""
    if TEXTS in types and value.startswith("[") and value.endswith("]"):
        return f"[{','.join(_text(item) for item in _items(value[1:-1]))}]"
    numbers = {"int", "float"} & types and re.fullmatch(r"[-+]?\d+(\.\d*)?(e[-+]?\d+)?", value)
    if numbers or (value == "null" and "None" in types) or (value in ("true", "false") and "bool" in types):
        return value
    return _text(value)


def _swept(value: str, types: frozenset[str]) -> list[str]:
    """The values of several runs that ``value`` lists."""
    return re.split(r"(?<=\]),\s*(?=\[)", value) if TEXTS in types and value.startswith("[") else _items(value)


def _items(text: str) -> list[str]:
    """What stands between the commas of ``text``, those in quotes apart, without spaces around it."""
    found = [match[1] or match[2].strip() for match in ITEM.finditer(text)]
    return found if text.rstrip().endswith(",") else found[:-1] if text.strip() else []


def _text(value: str) -> str:
    if QUOTED.fullmatch(value):
        return value
    return _quote(expand_home(value))


def expand_home(path: str) -> str:
    """``path`` with the home folder in place of a ``~`` or ``~/`` that it begins with."""
    return f"{Path.home()}{path[1:]}" if path == "~" or path.startswith("~/") else path


def _quote(text: str) -> str:
    return text if PLAIN.fullmatch(text) else QuotedString(text, Quote.single).with_quotes()


def _reads(argument: str) -> bool:
    try:
        OverridesParser.create().parse_override(argument)
    except HydraException:
        return False
    return True


def types_of(key: str, schema: Any) -> frozenset[str]:
    """Names of the types that a setting takes; none where nothing says it."""
    group, *_, last = parts = key.split(".") if "." in key else ["", key]
    told: Sequence[str] = ()
    for part in filter(None, parts):
        if get_origin(schema) is list and part.isdecimal() and is_dataclass(of_list := get_args(schema)[0]):
            schema = of_list
            continue
        if not is_dataclass(schema):
            return _class_types(group, last) if get_origin(schema) is dict else frozenset()
        known = {field.name: field for field in fields(schema)}
        if part not in known:
            return frozenset()
        schema, told = get_type_hints(schema)[part], known[part].metadata.get("types", ())
    return frozenset(told) or _names(schema)


def _names(hint: Any) -> frozenset[str]:
    """Those of the parts of a union, else that of the type itself."""
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    names = (inspect.formatannotation(part) for part in parts)
    return frozenset(map(_plain, names))


@cache
def _class_types(group: str, name: str) -> frozenset[str]:
    """Names of the types that the classes which the files of ``group`` name take as ``name``; of all, if it is none."""
    folder = CONFIGS / group
    files = sorted(folder.glob("*.yaml") if folder.is_dir() else CONFIGS.glob("*/*.yaml"))
    targets = {target for file in files for target in TARGET.findall(file.read_text(encoding="utf-8"))}
    return frozenset(kind for target in sorted(targets) for kind in _parameters(target).get(name, ()))


@cache
def _parameters(target: str) -> dict[str, frozenset[str]]:
    """Names of the types of each argument of a class of kravl, read from its source: to import it may load torch."""
    module, _, name = target.rpartition(".")
    source = importlib.util.find_spec(module)
    text = Path(source.origin).read_text(encoding="utf-8") if source and source.origin else ""
    found = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef) and node.name == name:
            for function in node.body:
                if isinstance(function, ast.FunctionDef) and function.name == "__init__":
                    for argument in (*function.args.args, *function.args.kwonlyargs):
                        written = ast.unparse(argument.annotation) if argument.annotation else ""
                        found[argument.arg] = frozenset(map(_plain, written.split(" | ")))
    return found


def _plain(name: str) -> str:
    """``list[str]`` for any sequence of texts, and ``None`` for its type."""
    return TEXTS if name in SEQUENCES else name.replace("NoneType", "None")
