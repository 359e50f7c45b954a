"""Class folders that begin with a number, as those of Caltech-256 and CUB-200: ``001.Black_footed_Albatross``."""

import re


def without_number(folder: str) -> str:
    """What the class is called: no number before it, no ``-101`` after it, spaces for hyphens and ``_``."""
    name = re.sub(r"^\d+\.", "", folder)
    return re.sub(r"-101$", "", name).replace("-", " ").replace("_", " ")
