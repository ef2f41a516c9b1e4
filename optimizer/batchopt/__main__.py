"""`python -m batchopt`: the `batchopt` command, where its script is not on the path."""

from batchopt.cli.batchopt import main

if __name__ == "__main__":
    main()
