"""``python -m kravl.quickstart``, now ``kravl quickstart``."""

from kravl.cli.main import former

if __name__ == "__main__":
    former("quickstart")
