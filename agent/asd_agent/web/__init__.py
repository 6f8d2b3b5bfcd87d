"""The local page: a process of its own that asks the daemon over its control socket and only reads the store.

security/    who may do what: passwords, sessions, the guard in front of every request
pages/       one module a page: its handlers
templates/   HTML; static/ style and scripts, no framework in the browser
"""
