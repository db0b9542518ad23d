"""Bounds that producers, tariffs and doors share."""

LENGTH_HOURS_MAX = 366 * 24
"""No ride is longer, nor a reservation, nor a wait for an end that was lost."""
METERS_MAX = 2**31 - 1
"""A ride that goes farther is for people."""
ZONES_MAX = 64
"""So many zones' fees an event names at most."""
SESSION_ID_MAX = 64
"""Characters of a ride's id."""
