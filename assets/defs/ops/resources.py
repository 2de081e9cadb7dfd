"""Resources and the executor of the code location."""

import dagster as dg

from assets.lib.executors import executor
from assets.lib.vlm_server import VlmServer
from assets.resources import Corpus


@dg.definitions
def resources() -> dg.Definitions:
    return dg.Definitions(resources={"corpus": Corpus(), "vlm_server": VlmServer()}, executor=executor())
