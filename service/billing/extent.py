"""Bounds that producers, tariffs and doors share: so much that no honest one meets them, and no dishonest one makes a
ride's price take seconds."""

LENGTH_HOURS_MAX = 366 * 24
"""No ride is longer, nor a reservation, nor a wait for an end that was lost."""
METERS_MAX = 2**31 - 1
"""A ride that goes farther is for people."""
ZONES_MAX = 64
"""So many zones' fees an event names at most."""
SEGMENTS_MAX = 50
"""A tariff has as many segments of a kind at most, and windows, discounts, and hours of one."""
CAP_MINUTES_MIN = 10
"""`fare_capping` caps no shorter time."""
EVENTS_MAX = 5000
"""A ride that has as many events is for people, and takes no more pauses: a lock that flaps, an app in a loop."""
EVENTS_SPARE = 100
"""How many of other kinds it takes all the same: its end, a correction."""
SESSION_ID_MAX = 64
"""Characters of a ride's id."""
