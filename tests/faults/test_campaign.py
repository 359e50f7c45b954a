"""The campaign itself: rows are found by being there, and a table says what they reached."""

from faults.campaign import Outcome, Row, markdown, record, rows


def row(number: int) -> Row:
    return Row(number, "a fault", "0 lost", 10, 1, lambda count, folder: Outcome(count, "0 lost"))


def test_every_row_that_is_there_is_found_by_number():
    numbers = [found.number for found in rows().values()]
    assert numbers == sorted(numbers)
    assert all(0 < found.quick_count <= found.full_count for found in rows().values())


def test_a_row_passes_only_if_something_was_tried_and_nothing_failed():
    assert record(row(1), Outcome(3, "3 of 3"), 1.0)["passed"]
    assert not record(row(1), Outcome(0, "nothing"), 1.0)["passed"]
    assert not record(row(1), Outcome(3, "2 of 3", ["the third"]), 1.0)["passed"]


def test_the_table_has_a_line_a_row():
    records = [record(row(n), Outcome(2, "0 lost"), 1.0) for n in (1, 2)]
    assert markdown(records).splitlines()[2:] == [f"| {n} | a fault | 0 lost | 2 | 0 lost | yes |" for n in (1, 2)]
