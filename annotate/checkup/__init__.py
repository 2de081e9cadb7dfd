"""The checkup: checks of a run's signals that find faults inside runs which are readable."""
