"""Resources and the executor of the code location."""

import dagster as dg

from assets.executors import executor
from assets.resources import Corpus
from assets.vlm_server import VlmServer


@dg.definitions
def resources() -> dg.Definitions:
    return dg.Definitions(resources={"corpus": Corpus(), "vlm_server": VlmServer()}, executor=executor())
