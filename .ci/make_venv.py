"""Make a virtual environment, and say what to do where that is not possible."""

import sys

if sys.version_info < (3, 11):
    found = ".".join(map(str, sys.version_info[:3]))
    sys.exit(f"Python {found} is too old, 3.11 is needed; name a newer one, as in: make test PYTHON=python3.12")

try:
    import ensurepip  # noqa: F401
    import venv
except ImportError:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    sys.exit(f"this Python cannot make environments; on Debian and Ubuntu: sudo apt-get install python{version}-venv")

venv.create(sys.argv[1], with_pip=True, clear=True)
