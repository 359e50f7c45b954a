"""``python -m kravl.report``, now ``kravl report``."""

from kravl.cli.main import former

if __name__ == "__main__":
    former("report")
