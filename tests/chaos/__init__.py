"""The failure suite: random work is done while processes are killed and connections cut; then the history is checked.

`python -m tests.chaos --help` says how to run it; `deploy/RELIABILITY.md` says what it shows.
"""
