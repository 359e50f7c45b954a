"""``python -m kravl.spectra``, now ``kravl spectra``."""

from kravl.cli.main import former

if __name__ == "__main__":
    former("spectra")
