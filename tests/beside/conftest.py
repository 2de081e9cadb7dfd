"""Tests of what lies beside some checkouts and may not be committed: elsewhere there is nothing here to run.

What they protect is protected everywhere by generated datasets with the same quirks, in the tests of the readers.
"""

from tests.kits.real_data import BESIDE

collect_ignore_glob = [] if BESIDE.is_dir() else ["test_*.py"]
