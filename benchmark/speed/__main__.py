"""``python -m speed``."""

from speed.run import main

if __name__ == "__main__":
    raise SystemExit(main())
