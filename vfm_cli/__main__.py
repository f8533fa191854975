"""`python -m vfm_cli`."""

from vfm_cli.main import main

if __name__ == "__main__":
    main()
