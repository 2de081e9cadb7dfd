"""Forms that others give labels, a module for each: its rules, what they were read from, and its reader."""
