"""Echo's HTTP server.

    python serve.py [KEY=VALUE ...]

``--help`` lists the settings, ``--cfg job`` prints those in force.
"""

from __future__ import annotations

import sys

from echo.cluster.server import main
from echo.ui.launch import page_beside_api

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], page_beside_api))
