"""The `transfer` annotator: episodes of a task are laid beside those whose label a person vouches for."""
