"""``python -m kravl.report``, the former name of ``kravl report``."""

from kravl.cli.main import former

if __name__ == "__main__":
    former("report")
