"""The `motion` annotator: labels from what grippers, state and pictures show, without a model."""
