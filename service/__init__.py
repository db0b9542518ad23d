"""Farebox: usage-metered rental billing.

rental.sessions (Kafka)                                                      rental.billing (Kafka)
      |                                                                              ^
      v                                                                              |
  events -> session -> usage -> charge -> obligation -> debit -> attempt -> outcome -> transfer -> status (HTTP)
  '-------------- intake, one transaction ----------'   '-------- collection, by provider -------'

`billing` holds the rules (pure), `flows` the processes, `adapters` the neighbours, `web` the doors, `lab` the
workbench.
"""
