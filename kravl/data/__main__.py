"""``python -m kravl.data``, now ``kravl data``."""

from kravl.cli.main import former

if __name__ == "__main__":
    former("data")
