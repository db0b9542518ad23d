"""The processes. Each is a bounded round that awaits both neighbours, and imports no other process.

What several of them need stands beside them: `clock`, `knowledge`, `decisions`, `accounts`, `admission`, `chores`.
"""
