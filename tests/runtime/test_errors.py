"""Messages name what was received, what is legal, and the nearest."""

from kravl.runtime.errors import first_line, nearest, unknown


def test_the_nearest_name_comes_first():
    assert nearest("lroa", ["kra", "lora", "vera"])[0] == "lora"
    assert nearest("lroa", ["road", "lora", "hra"]) == ["lora", "road", "hra"]  # swapped letters before another letter


def test_a_short_list_of_legal_names_is_shown_and_a_long_one_counted():
    assert (
        str(unknown("adapter", "lroa", ["lora", "kra"])) == "unknown adapter 'lroa': did you mean 'lora'? (kra, lora)"
    )
    assert str(unknown("model", "b1", [f"a{i}" for i in range(50)])).endswith("(50 names)")


def test_nothing_to_choose_from_is_said():
    assert "there are none to choose from" in str(unknown("preset", "x", []))


def test_first_line_keeps_the_message_short():
    assert first_line(ValueError("\n one\ntwo")) == "one"
    assert first_line(EOFError()) == "EOFError"
    assert len(first_line(ValueError("x" * 1000))) == 300
