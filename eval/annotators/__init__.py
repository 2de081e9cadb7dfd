"""Annotators compared: truth of episodes, labels beside it, what each scores, and the comparison of label runs."""
