"""Hydra's errors in one line, with the nearest legal name."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import ConfigTypeError, InterpolationKeyError, InterpolationResolutionError, ValidationError

from kravl.config.quoting import types_of
from kravl.config.schema import SCHEMAS, Stage
from kravl.config.untrusted import FOLDER
from kravl.runtime.errors import InputError, first_line, unknown

# plugin of Hydra -> extra of kravl
EXTRAS = {"joblib": "local", "submitit_local": "slurm", "submitit_slurm": "slurm", "optuna": "search"}

# what other tools call a setting
SYNONYMS = {
    "learning_rate": "lr",
    "num_epochs": "epochs",
    "max_epochs": "epochs",
    "max_steps": "steps",
    "bs": "batch_size",
    "workers": "num_workers",
    "num_shots": "shots",
    "dataset": "data",
    "model": "backbone",
    "output_dir": "runs",
    "logger": "tracking",
}
WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "list[str]": "a list such as [a,b]",
    "list[kravl.config.schema.Stage]": "a list such as [{train:[adapters],share:0.6},{train:[head]}]",
    "None": "null",
}
COMPOSING = re.compile(
    r"In '(?P<file>[^']+)': \w+ raised while composing config:\n(?P<what>[^\n]*)(\n\s*full_key: (?P<key>\S*))?"
)
VALUE = re.compile(r"(?:Value|Cannot convert '\w+' to string:) '?(.*?)'?(?: of type .*| \(.*|$)")
OF_VALUES = re.compile(r"dict\[str, (int \| None|list\[str\])\]")
TYPE_ERRORS = (ValidationError, ConfigTypeError)
RESOLVING = re.compile(r"(\w+) raised while resolving interpolation: (.*)")
NULLS = {"shots": ", which is all images"}


def rephrase(
    error: Exception, overrides_of: Sequence[str], config_name: str, experiments: Callable[[], Iterable[str]]
) -> InputError:
    """Hydra's message in one line, with the nearest legal name; ``experiments`` lists those that there are."""
    text = str(error)
    of_kravl = error.__cause__ if isinstance(error.__cause__, InputError) else _of_stage(str(error.__cause__), text)
    if of_kravl:  # that of a resolver, or of the list of stages
        return of_kravl
    if missing := re.search(r"Missing mandatory value: ([\w.]+)", text):
        return InputError(f"no value for {missing[1]!r}; give it as {missing[1]}=...")
    if isinstance(error, MissingConfigException) and "/" in str(error.missing_cfg_file):
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        if choice in EXTRAS:
            return InputError(f"{group} needs a plugin of Hydra: pip install 'kravl[{EXTRAS[choice]}]'")
        return unknown(group, choice, experiments() if group == "experiment" else error.options or ())
    place = re.search(r"In '([^']+)'", text)
    where = f" in configs/{place[1]}.yaml" if place and place[1] != config_name else ""
    if wrong := re.search(r"full_key: (\S+)", text) if "not in" in text else re.search(r"override '([^']+)'", text):
        if f"+{wrong[1]}" in (argument.partition("=")[0] for argument in overrides_of):
            return InputError(f"+{wrong[1]}: the setting exists already; write {wrong[1]}=... without +")
        return _unknown_key(f"key{where}", wrong[1], _legal_keys(overrides_of, config_name))
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override, _legal_keys(overrides_of, config_name))
    if isinstance(error.__cause__, TYPE_ERRORS) and (typed := re.match(r"Error merging override (.*)", text)):
        return wrong_type(typed[1], config_name, str(error.__cause__.full_key or ""))
    if isinstance(error, InterpolationKeyError | InterpolationResolutionError):
        return omegaconf_error(error)
    return _in_file(text, config_name) or _as_it_is(error)


def _as_it_is(error: Exception) -> InputError:
    if str(getattr(error.__cause__, "full_key", "")).partition(".")[0] == "hydra":
        return InputError("a config file sets Hydra up (hydra), which may run code; only the command line may")
    because = f": {first_line(error.__cause__)}" if error.__cause__ else ""
    return InputError(f"{first_line(error)}{because}")


def _in_file(text: str, config_name: str) -> InputError | None:
    """What is wrong with a value in a file of configs, and what its setting takes; None of other mistakes."""
    if (found := COMPOSING.match(text)) is None:
        return None
    what, key = found["what"], found["key"] or ""
    if section := re.match(r"Merge error: \w+ is not a subclass of (\w+)\. value: (.*)", what):
        kinds = {field.name: getattr(field.type, "__name__", "") for field in fields(SCHEMAS[config_name])}
        key = next((name for name, kind in kinds.items() if kind == section[1]), "hydra")
        what = f"Value {section[2]} (is no section)"
    if key.partition(".")[0] == "hydra":
        return InputError(f"configs/{found['file']}.yaml sets Hydra up ({key}); only the command line may")
    legal = _legal(f"stages.0.{key}" if key in {field.name for field in fields(Stage)} else key, config_name)
    if value := VALUE.match(what):
        what = f"{key}={value[1]}"
    elif key and legal:
        what = f"{key}={'null' if 'not Optional' in what else '...'}"
    elif what.startswith("Cannot merge "):
        what = "a list stands where settings by name are expected, or they where a list is"
    return InputError(f"configs/{found['file']}.yaml: {what}{f': it must be {legal}' if legal else ''}")


def _of_stage(cause: str, text: str) -> InputError | None:
    """What is wrong with a key of one of the stages; None of other mistakes."""
    if wrong := re.search(r"Key '([^']*)' not in 'Stage'", cause):
        return unknown("key of a stage", wrong[1], [field.name for field in fields(Stage)])
    if wrong := re.search(r"Key '([^']*)' not in 'Stage'", text):  # in a file
        return unknown("key of a stage", wrong[1], [field.name for field in fields(Stage)])
    if "not a subclass of Stage" in cause and (place := re.search(r"override \+*stages\.(\d+)", text)):
        return InputError(f"stages.{place[1]}: there is no such stage; they count from 0, and stages=[...] gives all")
    return None


def omegaconf_error(error: Exception) -> InputError:
    """OmegaConf's message in one line; of a variable of the shell that is taken for a setting, what to write."""
    if isinstance(error, InterpolationResolutionError) and (raised := RESOLVING.match(first_line(error))):
        return _of_resolver(*raised.groups())
    missing = re.search(r"Interpolation key '([^']+)' not found", str(error))
    if missing is None or not isinstance(error, InterpolationKeyError):
        return InputError(first_line(error))
    name = missing[1]
    if name not in os.environ:
        return InputError(f"${{{name}}} is no setting; \\${{{name}}} is this text itself")
    by_hydra = f"${{oc.env:{name}}}"
    instead = f"{by_hydra} or " if FOLDER.fullmatch(by_hydra) else ""
    return InputError(
        f"${{{name}}} is no setting; of the variable of that name write {instead}its value, or leave out the single "
        "quotes, within which the shell replaces none"
    )


def _of_resolver(kind: str, text: str) -> InputError:
    """What one of the functions that ``${name:...}`` calls has raised; OmegaConf keeps its type and message alone."""
    if kind == InputError.__name__:
        return InputError(text)
    if variable := re.search(r"Environment variable '([^']*)' not found", text):
        name = variable[1]
        return InputError(f"${{oc.env:{name}}}: the variable {name} is not set; export {name}=..., or write its value")
    return InputError(f"an interpolation ${{...}} cannot be resolved: {text}")


def _unknown_key(kind: str, key: str, legal: set[str]) -> InputError:
    """The nearest is one with the same last part, wherever it belongs, or with what it is called here."""
    if key in legal:
        nested = key.replace(".", ": {", 1) + ": ...}" if "." in key else key
        told = f"in a file it is nested, {nested}" if kind != "key" else f"+{key}.NAME=... adds one to it"
        return InputError(f"{kind} {key!r}: {told}")
    last = key.rpartition(".")[2]
    same = [each for each in legal if each.rpartition(".")[2] == SYNONYMS.get(last, last)]
    return unknown(kind, key, legal, near=same)


def wrong_type(override: str, config_name: str, inner: str = "") -> InputError:
    """What the setting takes, by the schema; of what the schema leaves open, what the value is not.

    Args:
        inner: the dotted key that is wrong, where the override gives several; of a stage the last part of it.
    """
    key, subject = override.partition("=")[0].lstrip("+"), "it"
    if key.startswith("stages") and inner in {field.name for field in fields(Stage)}:
        key, subject = f"stages.0.{inner}", f"{inner} of a stage"
    elif inner.startswith(f"{key}."):
        key = subject = inner
    shown = override if override.endswith(("}", "]")) else override.partition(": ")[0]
    return InputError(f"{shown.lstrip('+')}: {subject} must be {_legal(key, config_name) or 'of another type'}")


def _legal(key: str, config_name: str) -> str:
    """What a setting takes by the schema, in words; empty where that says nothing of it."""
    types = types_of(key, SCHEMAS[config_name]) if key else frozenset()
    if key and not types and (values := OF_VALUES.match(str(*types_of(key.rpartition(".")[0], SCHEMAS[config_name])))):
        types = frozenset(values[1].split(" | "))  # one of a mapping
    legal = [word for kind, word in WORDS.items() if kind in types]
    if any(kind.startswith(("dict[", "kravl.config.schema.")) for kind in types):
        legal = [f"settings by name, such as {key}={{NAME: VALUE}}", *legal]
    return f"{' or '.join(legal)}{NULLS.get(key, '') if 'null' in legal else ''}"


def _unreadable(override: str, legal: set[str]) -> InputError:
    """What Hydra's grammar stops at: a key that there is not, or a list or mapping that does not end."""
    key = override.partition("=")[0].lstrip("+~")
    if key not in legal and not key.startswith("hydra"):
        return _unknown_key("key", key, legal)
    return InputError(f"cannot read {override!r}: a list is {key}=[a,b], a mapping {{a: 1}}, a text {key}='\"...\"'")


def _legal_keys(arguments: Sequence[str], config_name: str) -> set[str]:
    """Groups, and the dotted keys of the config with the chosen groups."""
    loader = GlobalHydra.instance().config_loader()
    groups = {group for group in loader.list_groups("") if group != "hydra"}
    choices = [a for a in arguments if a.split("=")[0] in groups and "," not in a]
    try:
        config = compose(config_name, overrides=choices)
    except HydraException:
        config = compose(config_name)
    return groups | set(dotted(OmegaConf.to_container(config)))


def dotted(node: Any, prefix: str = "") -> Iterator[str]:
    """Every key below ``node``, under its dotted name."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield f"{prefix}{key}"
            yield from dotted(value, f"{prefix}{key}.")
