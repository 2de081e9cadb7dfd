"""How long tests wait for servers, processes and browsers: one constant, so that a busy machine fails none of them."""

PATIENCE_S = 600.0
