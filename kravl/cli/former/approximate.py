"""``python -m kravl.approximate``, now ``kravl approximate``."""

from kravl.cli.main import former

if __name__ == "__main__":
    former("approximate")
