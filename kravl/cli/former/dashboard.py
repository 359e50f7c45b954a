"""``python -m kravl.dashboard``, now ``kravl dashboard``."""

from kravl.cli.main import former

if __name__ == "__main__":
    former("dashboard")
