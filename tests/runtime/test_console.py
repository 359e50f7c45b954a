"""Tables show text as it is."""

import io

from rich.console import Console

from kravl.runtime.console import text_table


def test_no_cell_is_markup_and_none_is_cut() -> None:
    written = io.StringIO()
    rows = [["[red]run", "size", "place"], ["a[/]", "7", "far"], ["[bold]x", "12345", "a-very-long-name-of-a-place"]]

    Console(file=written, width=30).print(text_table(rows, left=("[red]run", "place")))

    lines = [line.split() for line in written.getvalue().splitlines() if line.strip(" ─")]
    assert lines[0] == ["[red]run", "size", "place"]
    assert lines[1] == ["a[/]", "7", "far"]
    assert lines[2][:2] == ["[bold]x", "12345"]
    assert "".join([lines[2][2], *(line[0] for line in lines[3:])]) == "a-very-long-name-of-a-place"
    first = next(line for line in written.getvalue().splitlines() if "a[/]" in line)
    assert first.index("7") == first.index("far") - 3, "numbers end where the longest does"
