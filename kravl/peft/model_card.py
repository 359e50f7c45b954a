"""The card that PEFT writes beside an adapter, with how to load it: without the import PEFT ends in a KeyError."""

from pathlib import Path

from kravl.runtime.files import write_atomic

LEFT_OPEN = "Use the code below to get started with the model.\n\n[More Information Needed]"  # of PEFT's template
LOADING = """Use the code below to get started with the model.

```python
import kravl.peft  # pip install 'kravl[peft]'; adds {method} to PEFT, which else ends in KeyError: '{method}'
from peft import PeftModel

model = PeftModel.from_pretrained(base_model, "...")  # this repository or folder
```"""


def complete_card(folder: Path, method: str) -> None:
    """Write how an adapter of ``method`` is loaded to the card in ``folder``, where PEFT's template leaves it open."""
    card = folder / "README.md"
    if card.is_file() and LEFT_OPEN in (text := card.read_text(encoding="utf-8")):
        write_atomic(card, text.replace(LEFT_OPEN, LOADING.format(method=method), 1))
