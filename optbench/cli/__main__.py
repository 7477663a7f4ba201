"""``python -m optbench.cli``."""

from optbench.cli import main

if __name__ == "__main__":
    main()
