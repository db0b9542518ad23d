"""How long and how far anything that is charged goes."""

LENGTH_HOURS_MAX = 366 * 24
"""No ride is longer, nor a reservation, nor a wait for an end that was lost."""
METERS_MAX = 2**31 - 1
"""A ride that goes farther is for people."""
