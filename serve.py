"""Echo's HTTP server.

    python serve.py [KEY=VALUE ...]

``--help`` lists the settings, ``--cfg job`` prints those in force.
"""

from __future__ import annotations

import sys

from echo.api.server import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
