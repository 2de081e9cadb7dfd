"""The entry point of the command `proccorpus`; its commands are in cli/, a module per topic."""

from cli.main import main_of_process as main

if __name__ == "__main__":
    main()
