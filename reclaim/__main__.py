"""``python -m reclaim``: the command line."""

from reclaim.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
