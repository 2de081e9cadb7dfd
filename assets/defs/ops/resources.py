"""Resources and the executor of the code location. Steps run in one process: several runs give parallelism."""

import dagster as dg

from assets.resources import Corpus


@dg.definitions
def resources() -> dg.Definitions:
    return dg.Definitions(resources={"corpus": Corpus()}, executor=dg.in_process_executor)
