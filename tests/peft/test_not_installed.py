"""Without PEFT, or with one that is too old, importing the room says what to install."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("version", "told"),
    [
        (
            "raise m.PackageNotFoundError(name)",
            "kravl.peft needs PEFT, which is not installed: pip install 'kravl[peft]'",
        ),
        (
            "return '0.20.0'",
            "peft 0.20.0 is too old for kravl.peft: it saves and loads only its own methods; pip install 'peft>=0.21'",
        ),
    ],
)
def test_a_missing_or_old_peft_is_one_line_that_says_what_to_install(version, told):
    code = (
        "import importlib.metadata as m; real = m.version\n"
        "def version(name):\n"
        f"    if name == 'peft': {version}\n"
        "    return real(name)\n"
        "m.version = version\n"
        "import kravl.peft"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)

    assert done.stderr.splitlines()[-1] == f"kravl.runtime.errors.InputError: {told}"
