"""The card of a run: no text of a setting leaves its place in it."""

import yaml

from kravl.run.finished.card import settings_block


def test_no_setting_ends_the_block_of_settings():
    config = {"data": {"templates": ["a\n```\n# a heading\n````"]}, "seed": 1}

    first, *lines, last = settings_block(config).split("\n")

    assert first == f"{last}yaml"
    assert last not in lines
    assert yaml.safe_load("\n".join(lines)) == config
