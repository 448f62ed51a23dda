"""The page in the browser: python gradio_app.py [KEY=VALUE ...]; --help lists the settings."""

import sys

from echo.config import run_program
from echo.ui.launch import DESCRIPTION, launch

if __name__ == "__main__":
    sys.exit(run_program(sys.argv[1:], launch, DESCRIPTION))
