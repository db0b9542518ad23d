"""`farebox demo`: everything on one machine, a simulated city, and a summary that must balance."""
