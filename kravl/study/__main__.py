"""``python -m kravl.study``, now ``kravl study``."""

from kravl.cli.main import former

if __name__ == "__main__":
    former("study")
