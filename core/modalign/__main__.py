"""`python -m modalign`: the command line, for launchers that start a module."""

from modalign.cli import main

if __name__ == "__main__":
    main()
