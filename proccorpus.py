"""The entry point of the command `proccorpus`; its commands are in cli/, a module per topic."""

from cli.main import app, main

__all__ = ["app", "main"]

if __name__ == "__main__":
    main()
