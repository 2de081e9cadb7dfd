"""Resources and the executor of the code location. Steps run in one process: several runs give parallelism."""

import dagster as dg

from assets.resources import Corpus
from assets.vlm_server import VlmServer


@dg.definitions
def resources() -> dg.Definitions:
    return dg.Definitions(resources={"corpus": Corpus(), "vlm_server": VlmServer()}, executor=dg.in_process_executor)
