"""The `hicom-edge` command, also as `python -m hicom_edge`."""

import gc
import sys


def main() -> int:
    """Run the command line and return its exit status; Ctrl-C may come during the import."""
    try:
        from hicom_edge import cli

        return cli.main()
    except KeyboardInterrupt:  # during the import; later ones are cli's
        return 130
    finally:
        # At exit Python collects garbage once more, which takes a second or two after a command
        # that imported transformers. Frozen objects are left to the system.
        gc.freeze()


if __name__ == "__main__":
    sys.exit(main())
