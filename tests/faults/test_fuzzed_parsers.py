"""Row 21: whatever a file says, each parser of ours reads it or refuses it with InputError."""

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from faults.campaign import Outcome, Row
from faults.parsers import PARSERS, Parser
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kravl.config.untrusted import check_interpolations
from kravl.runtime.errors import InputError
from kravl.runtime.yaml_files import parse_yaml

EXAMPLES = 40  # of each parser in the default suite
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner))


@st.composite
def contents(draw: st.DrawFn, example: bytes) -> bytes:
    """Anything, the example with parts replaced, or the JSON that it is with another value at some place."""
    kind = draw(st.sampled_from(("changed", "bytes", "value", "nested")))
    if kind == "bytes":
        return draw(st.binary(max_size=200))
    if kind == "nested":
        return draw(st.sampled_from((b"[", b'{"a":', b"- ", b"<a>", b"9"))) * draw(st.integers(0, 20_000))
    try:
        value = json.loads(example)
    except ValueError:
        kind = "changed"
    if kind == "value":
        return json.dumps(_planted(draw, value)).encode()
    content = bytearray(example)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        content[start : start + draw(st.integers(0, 8))] = draw(st.binary(max_size=8))
    return bytes(content)


def _planted(draw: st.DrawFn, value: object) -> object:
    """``value`` with something else at one place, however deep."""
    if isinstance(value, dict) and value and draw(st.booleans()):
        key = draw(st.sampled_from(sorted(value)))
        return {**value, key: _planted(draw, value[key])}
    if isinstance(value, list) and value and draw(st.booleans()):
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], _planted(draw, value[place]), *value[place + 1 :]]
    return draw(VALUES)


def attack(parser: Parser, examples: int) -> None:
    """Read ``examples`` contents, the same ones every time. Raises what is not InputError."""

    @settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(contents(parser.example))
    def read(content: bytes) -> None:
        with TemporaryDirectory() as name:
            folder = Path(name) / "seed1"
            (folder / parser.file).parent.mkdir(parents=True)
            (folder / parser.file).write_bytes(content)
            try:
                parser.read(folder)
            except InputError as error:
                assert len(str(error)) < 5000, "an endless message"

    read()


def _problems(examples: int) -> Iterator[str]:
    for name, parser in PARSERS.items():
        try:
            attack(parser, examples)
        except (
            ArithmeticError,
            AssertionError,
            AttributeError,
            LookupError,
            OSError,
            RuntimeError,
            TypeError,
        ) as error:
            yield f"{name}: {type(error).__name__}: {error}"
        except ValueError as error:  # among them InputError itself, where nothing refuses it
            yield f"{name}: {type(error).__name__}: {error}"


def run(count: int, folder: Path) -> Outcome:
    """``count`` contents of each parser."""
    problems = list(_problems(count))
    return Outcome(count * len(PARSERS), f"{len(PARSERS)} parsers, {len(problems)} other errors", problems)


ROW = Row(21, "fuzzed files", "every parser, 0 errors but InputError", 3000, EXAMPLES, run)


@pytest.mark.parametrize("name", PARSERS)
def test_a_parser_reads_a_file_or_refuses_it(name: str) -> None:
    attack(PARSERS[name], EXAMPLES)


FRAGMENTS = ("${", "}", "oc.env", "oc.decode", "oc.select", ":", "FAKE_KEY", "HOME", "b", ",", "'", " ", "\\", ".", "x")


@settings(max_examples=300, derandomize=True, deadline=None, database=None)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=14).map("".join))
def test_no_text_that_passes_resolves_to_a_key(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAKE_KEY", "obviously-fake")
        try:
            check_interpolations({"a": text}, "it")
            resolved = OmegaConf.to_container(OmegaConf.create({"a": text, "b": "FAKE_KEY"}), resolve=True)
        except (InputError, OmegaConfBaseException):
            return
    assert "obviously-fake" not in str(resolved)


@settings(max_examples=100, derandomize=True, deadline=None, database=None)
@given(st.text(alphabet="&*abc[]{}:,- \n!'\"", max_size=80))
def test_any_yaml_is_read_or_refused(text: str) -> None:
    try:
        parse_yaml(text, "it")
    except InputError as error:
        assert "\n" not in str(error)
