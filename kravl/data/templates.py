"""Prompt templates of a user's own: each has the class name in one place, written ``{}``."""

import re
from collections.abc import Iterable
from pathlib import Path

from kravl.runtime.errors import InputError
from kravl.runtime.files import read_text
from kravl.runtime.yaml_files import parse_list

LISTS = (".yaml", ".yml", ".json")
LINES = ".txt"
# what Python's format strings know besides {}, and control characters, which go to terminals and tables
SPECIAL = re.compile(r"\{\{|\}\}|\{[^{}]*\}|[{}]|[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

NEW_LINE = re.compile(r"\r\n|\r|\n")
QUOTED = re.compile(r"""("[^"]*"|'[^']*')\s*,?""")  # a line of a list in Python or JSON


def check_templates(where: str, templates: Iterable[object]) -> tuple[str, ...]:
    """``templates`` that have one ``{}`` each. Raises InputError as `check_template`, or where there is none."""
    listed = list(templates)
    if not listed:
        raise InputError(f"{where} holds no template; a template is a sentence with {{}} for the class name")
    several = len(listed) > 1
    return tuple(check_template(f"{where}, template {i}" if several else where, t) for i, t in enumerate(listed, 1))


def check_template(where: str, template: object) -> str:
    """A template that has one ``{}`` and no other field.

    Raises:
        InputError: it has not; with the template and the position of what is wrong, counted from 1.
    """
    if not isinstance(template, str):
        raise InputError(f"{where}: {str(template)[:200]!r} is {type(template).__name__}, not text; put it in quotes")
    found = [(match.group(), match.start() + 1) for match in SPECIAL.finditer(template)]
    shown = f"{where}: {template[:200]!r}"
    for text, position in found:
        if text != "{}":
            what = text if text.isprintable() else repr(text)
            raise InputError(f"{shown} has {what[:40]} at character {position}; the class name is written {{}}, once")
    if len(found) != 1:
        places = f" {len(found)} times, at characters {' and '.join(str(position) for _, position in found)}"
        raise InputError(f"{shown} has {f'{{}}{places}' if found else 'no {}'}; the class name is written {{}}, once")
    return template


def is_template_file(choice: str) -> bool:
    """Whether a choice without braces names a file rather than a set of templates."""
    path = Path(choice)
    return path.suffix in (*LISTS, LINES) or "/" in choice or path.is_file()


def read_templates(path: str) -> tuple[str, ...]:
    """The templates in a file: one a line, or a YAML or JSON list.

    Raises:
        InputError: no such file, one that is not UTF-8 or no such list, no template, or one that is none; with its
            line, or its place in the list.
    """
    text = read_text(path)
    if Path(path).suffix in LISTS:
        return check_templates(path, parse_list(text, path))
    lines = [(number, line.strip(" \t")) for number, line in enumerate(NEW_LINE.split(text), start=1) if line.strip()]
    for number, line in lines:
        if QUOTED.fullmatch(line):
            raise InputError(
                f"{path}, line {number}: {line[:200]!r} is in quotes, which prompts would have too; a line is the "
                "sentence alone, and a list in quotes goes into a .json or .yaml file"
            )
    return tuple(check_template(f"{path}, line {number}", line) for number, line in lines) or check_templates(path, ())
