"""The `hicom-edge` command, as `python -m hicom_edge` too.

It knows that Ctrl-C may come while the command line is still being imported.
"""

import sys


def main() -> int:
    """Import the command line, run it, and return its exit status."""
    try:
        from hicom_edge import cli

        return cli.main()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
