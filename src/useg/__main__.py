"""`python -m useg` is the same as `useg`."""

from useg.cli import main

if __name__ == "__main__":
    main()
