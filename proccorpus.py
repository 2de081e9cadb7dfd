"""The entry point of the command `proccorpus`; its commands are in cli/, a module per topic."""

from cli.completing import complete_names


def main() -> None:
    if not complete_names():
        # The commands cost more to import than a name to complete
        from cli.main import main_of_process

        main_of_process()


if __name__ == "__main__":
    main()
