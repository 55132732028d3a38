"""Runs the command line as ``python -m meshpeer``."""

from meshpeer.app.cli.main import main

if __name__ == "__main__":
    main()
