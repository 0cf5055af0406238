"""python -m xnets, which is the command `xnets`."""

from xnets.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
