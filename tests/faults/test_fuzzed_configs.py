"""Row 33: files of configs made of whatever Hydra knows: composed or refused in a line, and never more than a file may.

For an hour: ``python -m tests.faults --only 33 --tries 20000``.
"""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from faults.campaign import Outcome, Row
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from kravl.config.compose import compose_checked, composing, register_configs
from kravl.config.schema import CACHE, CONFIGS
from kravl.config.untrusted import OUTPUTS, TYPED_ONLY
from kravl.runtime.errors import InputError

pytestmark = pytest.mark.long

EXAMPLES = 25
ENDS = st.sampled_from(("\n", "\n\n", "\r\n", "\r", "\x0b", "\x0c", "\x85", "\u2028", " ", "\n#", "\ufeff"))
PACKAGES = (
    "_global_",
    "_group_",
    "data",
    "hydra",
    "hydra.job_logging",
    "hydra.job",
    "a.b",
    "",
    "_global_.hydra",
    "x y",
)
HEADERS = st.sampled_from([f"# @package {name}" for name in PACKAGES] + ["#@package hydra", "# @option x", "# a word"])
ENTRIES = (
    "_self_", "/data: digits", "override /data: digits", "override /hydra/job_logging: none", "/experiment: theirs",
    "experiment: other", "optional /method: nothing", "/data@hydra.job: digits", "override /method: lora", "other",
    "/data: [digits, folder]", "/data: ${method}", "../data: digits", "{}", "1", "null", "/data@_global_: digits",
)  # fmt: skip
KEYS = (
    "name", "label", "runs", "cache_root", "seed", "shots", "optim.lr", "optim: {lr", "plugins", "resume", "overwrite",
    "adapter", "adapter: {rank", "hydra", "hydra: {job", "data", "trainer: {devices", "evaluation: {sets", "alphas",
    "data: {name", "loading: {batch_size", "backbone: {build", "unknown",
)  # fmt: skip
TEXTS = (
    "1", "-1", "0", ".nan", ".inf", "1e400", "true", "null", "''", "a", "/a", "../a", "~", "[]", "[a]", "{}", "{a: 1}",
    "${seed}", "${data.name}", "${oc.env:HOME}", "${oc.env:KEY}", "${hydra:job}", "${nothing}", "${name}", "9" * 20,
    "'\\0'", '"\\ud800"', '"\\e[1m"', "&a [*a]", "!!python/name:os.system", "{dir: a}", "{_target_: os.system}", "???",
)  # fmt: skip


def _line(key: str, value: str) -> str:
    return f"{key}: {value}{'}' * key.count('{')}\n"


FILES = st.tuples(
    st.lists(st.tuples(HEADERS, ENDS), max_size=3).map(lambda lines: "".join(map("".join, lines))),
    st.lists(st.sampled_from(ENTRIES), max_size=3).map(lambda listed: f"defaults: [{', '.join(listed)}]\n"),
    st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(TEXTS)).map(lambda pair: _line(*pair)), max_size=3),
    st.booleans(),
).map(lambda parts: parts[0] + (parts[1] if parts[3] else "") + "".join(parts[2]))


def attack(folder: Path, examples: int) -> None:
    """Compose two made files ``examples`` times. Raises what is not InputError, AssertionError for what is gained."""
    shutil.copytree(CONFIGS, folder / "configs")
    frames: list[object] = []

    @settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(FILES, FILES)
    def composed(theirs: str, other: str) -> None:
        for name, text in (("theirs", theirs), ("other", other)):
            (folder / f"configs/experiment/{name}.yaml").write_text(text, encoding="utf-8", newline="")
        try:
            with composing():
                config = compose_checked(["data=digits", "experiment=theirs"], "train")
        except InputError as error:
            assert "\n" not in str(error)
            assert len(str(error)) < 5000
            return
        frames.append(config)
        plain = OmegaConf.to_container(config)
        assert isinstance(plain, dict)
        assert all(plain[key] == unsaid for key, unsaid in TYPED_ONLY.items() if key in plain)
        for key in set(OUTPUTS) & set(plain):
            place = OmegaConf.select(config, key)
            assert plain[key] in (CACHE, None) or not str(place).startswith(("/", "~", ".."))
        assert "hydra" not in plain

    with pytest.MonkeyPatch.context() as patch:
        register_configs()
        patch.setattr("kravl.config.compose.CONFIGS", folder / "configs")
        patch.setenv("KEY", "obviously-fake")
        composed()
    assert frames or examples < EXAMPLES, "no file that was made is one"


def run(count: int, folder: Path) -> Outcome:
    """``count`` pairs of files."""
    try:
        attack(folder, count)
    except (ArithmeticError, AssertionError, AttributeError, LookupError, OSError, RuntimeError, TypeError) as error:
        return Outcome(count, "another error", [f"{type(error).__name__}: {error}"])
    except ValueError as error:
        return Outcome(count, "another error", [f"{type(error).__name__}: {error}"])
    return Outcome(count, f"{count} pairs of files, 0 other errors, nothing gained", [])


ROW = Row(33, "fuzzed files of configs", "0 errors but InputError, no right of the command line", 3000, EXAMPLES, run)


def test_a_made_config_is_composed_or_refused_and_says_no_more_than_a_file_may() -> None:
    with TemporaryDirectory() as name:
        attack(Path(name), EXAMPLES)
