"""Prompt templates and facts are read from the text files of a set."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from kravl.data import catalog
from kravl.runtime.errors import InputError


def test_the_template_of_a_set_is_its_own_or_the_plain_one() -> None:
    assert catalog.templates("dtd", "single") == ("{} texture.",)
    assert catalog.templates("a set of mine", "single") == ("a photo of a {}.",)
    assert catalog.templates("dtd", "plain") == ("a photo of a {}.",)
    assert catalog.templates("dtd", "a sketch of a {}.") == ("a sketch of a {}.",)


@pytest.mark.parametrize(("choice", "count"), [("imagenet7", 7), ("openai80", 80)])
def test_an_ensemble_is_the_published_list(choice: str, count: int) -> None:
    templates = catalog.templates("imagenet", choice)

    assert len(set(templates)) == count
    assert all(template.count("{}") == 1 for template in templates)
    assert "itap of a {}." in templates


def test_an_unknown_template_set_is_named_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"unknown template set 'openai8': did you mean 'openai80'.*file of templates"):
        catalog.templates("imagenet", "openai8")


@pytest.mark.parametrize(
    ("template", "wrong"),
    [
        ("a {}, a type of {}.", "has {} 2 times, at characters 3 and 17; the class name is written {}, once"),
        ("a photo of a {c}.", "has {c} at character 14; the class name is written {}, once"),
        ("a photo of a {} {x}", "has {x} at character 17"),
        ("{0} texture", "has {0} at character 1"),
        ("{:>9}", "has {:>9} at character 1"),
        ("{!r}", "has {!r} at character 1"),
        ("a {{}}", "has {{ at character 3"),
        ("a {}}", "has } at character 5"),
        ("{} in {{brackets}}", "has {{ at character 7"),
        ("a\t{}", r"has '\t' at character 2"),
    ],
)
@pytest.mark.parametrize("given", [lambda t, path: t, lambda t, path: ["a {}.", t], lambda t, path: path])
def test_a_template_has_one_place_for_the_class_name(
    template: str, wrong: str, given: Callable[[str, str], object], tmp_path: Path
) -> None:
    (tmp_path / "own.json").write_text(json.dumps(["a {}.", template]))

    with pytest.raises(InputError, match=re.escape(f"{template!r} {wrong}")) as error:
        catalog.templates("folder", given(template, str(tmp_path / "own.json")))
    assert isinstance(given(template, ""), str) or "template 2" in str(error.value)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("own.txt", "\ufeffa {} in snow.\r\n\r\n  {}, 图 \n"),
        ("own.yaml", "# two\n- a {} in snow.\n- '{}, 图'\n"),
        ("own.json", '["a {} in snow.", "{}, 图"]'),
    ],
)
def test_a_file_of_templates_is_lines_or_a_list(file: str, text: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(text, encoding="utf-8")

    assert catalog.templates("dtd", str(tmp_path / file)) == ("a {} in snow.", "{}, 图")
    assert catalog.templates("dtd", ["a {} in snow.", "{}, 图"]) == ("a {} in snow.", "{}, 图")


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("own.txt", "a {}.\n\na cat.", "own.txt, line 3: 'a cat.' has no {}; the class name is written {}, once"),
        ("own.txt", "a {}.\n'a {}.',", """own.txt, line 2: "'a {}.'," is in quotes, which prompts would have too"""),
        ("own.txt", "a {}\x0cb {}", r"own.txt, line 1: 'a {}\x0cb {}' has '\x0c' at character 5"),
        ("own.txt", "\n", "own.txt holds no template"),
        ("own.yaml", "[]", "own.yaml holds no template"),
        ("own.yaml", "- a {}\n- 3", "own.yaml, template 2: '3' is int, not text"),
        ("own.yaml", "a: b", "own.yaml is not a list"),
        ("own.yaml", "'\"7\"'", "own.yaml is a single value, '\"7\"', not a mapping"),
        ("own.yaml", "- a {}\n- {} b", "own.yaml is not readable as YAML: line 2"),
        ("none.txt", None, "cannot read"),
    ],
)
def test_a_file_that_is_none_says_why(file: str, text: str | None, message: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / file).write_text(text)

    with pytest.raises(InputError, match=re.escape(message)):
        catalog.templates("dtd", str(tmp_path / file))


def test_class_names_are_lines_in_label_order() -> None:
    names = catalog.class_names("mnist")

    assert names is not None
    assert names[:3] == ("zero", "one", "two")
    assert catalog.class_names("caltech101") is None


SETS = sorted(
    path.name for path in catalog.folder().iterdir() if path.is_dir() and path.name not in ("methods", "published")
)


@pytest.mark.parametrize("name", SETS)
def test_every_set_says_where_it_comes_from_and_has_sound_templates(name: str) -> None:
    card = catalog.card(name)

    assert {"title", "homepage", "licence", "classes", "images", "cite"} <= set(card)
    assert str(card["homepage"]).startswith(("https://", "http://"))
    templates = catalog.folder() / name / "templates.txt"
    assert not templates.exists() or len(templates.read_text().splitlines()) == len(catalog.templates(name, "single"))
    assert len(catalog.class_names(name) or range(card["classes"])) == card["classes"]


def test_a_set_without_a_card_has_no_facts() -> None:
    assert catalog.card("a set of mine") == {}
