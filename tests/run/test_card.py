"""The card of a run: no text of a setting and no name of a class leaves its place in it."""

import yaml
from markdown_it import MarkdownIt

from kravl.run.finished.card import described_classes, inert, licence, results_table, settings_block


def test_no_setting_ends_the_block_of_settings():
    config = {"data": {"templates": ["a\n```\n# a heading\n````"]}, "seed": 1}

    first, *lines, last = settings_block(config).split("\n")

    assert first == f"{last}yaml"
    assert last not in lines
    assert yaml.safe_load("\n".join(lines)) == config


def test_the_name_of_a_class_is_shown_and_is_no_markup():
    names = ["<img src=http://other/a.png>", "![a](http://other/b.png)", "&amp; *b* _c_ `d`", "a\\<b>", "cat"]

    (inline,) = [token for token in MarkdownIt().parse(described_classes(names, "f")) if token.type == "inline"]

    assert {token.type for token in inline.children} == {"text"}  # no picture, no HTML, no emphasis
    assert "".join(token.content for token in inline.children) == ", ".join(names)


def test_no_name_in_a_record_is_markup():
    name = "<img src=http://other/a.png> ![a](http://other/b.png) `c` | ViT_B"
    table = "\n".join(results_table({"metrics": {f"{name}/accuracy": 0.5}}))
    card = f"{inert(name)}\n\n{table}\n\n{licence(name, name)}"

    tokens = MarkdownIt("gfm-like", {"linkify": False}).enable("table").parse(card)
    inline = [token for token in tokens if token.type == "inline"]

    assert {child.type for token in inline for child in token.children} == {"text"}
    assert [token.content for token in inline[1:5]] == ["set", "accuracy", inert(name).replace("\\|", "|"), "50.0 %"]
    assert "".join(child.content for child in inline[0].children) == name


def test_an_address_in_a_record_is_no_link():
    assert inert("http://other/a www.other.com a:b c.d") == r"http\://other/a www\.other.com a:b c.d"
