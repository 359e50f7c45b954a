"""Prompt templates and facts are read from the text files of a set."""

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
    with pytest.raises(InputError, match="unknown template set 'openai8': did you mean 'openai80'"):
        catalog.templates("imagenet", "openai8")


def test_class_names_are_lines_in_label_order() -> None:
    names = catalog.class_names("mnist")

    assert names is not None
    assert names[:3] == ("zero", "one", "two")
    assert catalog.class_names("caltech101") is None


@pytest.mark.parametrize("name", sorted(path.name for path in catalog.folder().iterdir() if path.is_dir()))
def test_every_set_says_where_it_comes_from_and_has_sound_templates(name: str) -> None:
    card = catalog.card(name)

    assert {"title", "homepage", "licence", "classes", "images", "cite"} <= set(card)
    assert str(card["homepage"]).startswith(("https://", "http://"))
    templates = catalog.folder() / name / "templates.txt"
    assert not templates.exists() or templates.read_text().strip().count("{}") == 1
    assert len(catalog.class_names(name) or range(card["classes"])) == card["classes"]


def test_a_set_without_a_card_has_no_facts() -> None:
    assert catalog.card("a set of mine") == {}
