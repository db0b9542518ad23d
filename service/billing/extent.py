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
FEES_MAX = 1000
"""It has as many zones' fees, and as many for parking."""
KINDS_MAX = 100
"""One of its discounts names as many types of vehicle, and categories of parking."""
TARIFF_BYTES_MAX = 64 * 1024
"""Its document is no longer, as it is stored: JSON in UTF-8, whatever the plan says that no rule reads."""
CAP_MINUTES_MIN = 10
"""`fare_capping` caps no shorter time."""
EVENTS_MAX = 5000
"""A ride that has as many events is for people, and takes no more pauses: a lock that flaps, an app in a loop."""
EVENTS_SPARE = 100
"""How many of other kinds it takes all the same, such as its end."""
CONFLICTS_MAX = 100
"""A ride keeps as many events that contradict others."""
DECISIONS_MAX = 100
"""A ride is corrected as often, and as often adjusted: each keeps a charge."""
SESSION_ID_MAX = 64
"""Characters of a ride's id."""
