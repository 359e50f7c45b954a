"""The card that PEFT writes beside an adapter, with how to load it: without the import PEFT ends in a KeyError."""

import os
from pathlib import Path

from peft.utils import CONFIG_NAME

from kravl.runtime.files import write_atomic

CARD = "README.md"
LEFT_OPEN = "Use the code below to get started with the model.\n\n[More Information Needed]"  # of PEFT's template
LOADING = """Use the code below to get started with the model.

```python
import kravl.peft  # pip install 'kravl[peft]'; adds {method} to PEFT, which else ends in KeyError: '{method}'
from peft import PeftModel

model = PeftModel.from_pretrained(base_model, "...")  # this repository or folder
```"""


def complete_card(folder: Path, method: str) -> None:
    """Write how an adapter of ``method`` is loaded to its card, where PEFT's template leaves it open.

    Args:
        folder: of the adapter's config. PEFT puts those of adapters not named "default" into folders of their own, and
            the card above them.
    """
    above = Path(os.path.abspath(folder)).parent  # noqa: PTH100 (the folder may be a link)
    if _complete(folder / CARD, method) or (above / CONFIG_NAME).is_file():  # of another adapter
        return
    _complete(above / CARD, method)


def _complete(card: Path, method: str) -> bool:
    """Whether there is a card."""
    if not card.is_file():
        return False
    try:
        text = card.read_text(encoding="utf-8")
    except (UnicodeDecodeError, PermissionError):  # not of PEFT
        return True
    if LEFT_OPEN in text:
        write_atomic(card, text.replace(LEFT_OPEN, LOADING.format(method=method), 1))
    return True
