"""A payment provider to try things on: a process of its own over HTTP, with its own books.

It shares no code and no table with the service, so that its books are the tests' oracle: what the service believes it
moved is compared with what the wallets here really lost.

    service --HTTP--> merchants --> desk (keys, faults) --> agreements | holds | debits | refunds --> books --> journal
       ^                                                                                     |
       +---------------------------- signed notifications <---- notices <-------------------+
"""
