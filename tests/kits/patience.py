"""How long tests wait for servers, processes and browsers: a busy machine fails none of them."""

PATIENCE_S = 600.0
