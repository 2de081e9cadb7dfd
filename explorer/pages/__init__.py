"""One module per page of the explorer: a router, and the queries that only this page asks."""
