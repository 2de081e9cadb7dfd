"""Tests of what lies beside some checkouts and may not be committed: elsewhere there is nothing here to run.

What they protect is protected everywhere by generated datasets with the same quirks, in the tests of the readers.
"""
