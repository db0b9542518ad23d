"""The neighbours. One file per outside system."""
