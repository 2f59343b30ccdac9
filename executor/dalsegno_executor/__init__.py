"""Executors: processes that take work from a planner, run user code, and report what came of it.

An executor is a *stream process*, which speaks with the planner and runs no user code, and its *runners*, which run
user code and know nothing of gRPC. They are joined by socket pairs that carry the messages of the stream itself.

================  =====================================================================================
module            what is there
================  =====================================================================================
``executor``      the stream process, put together
``protocol``      the session with the planner as a state machine without I/O
``open_reports``  what that machine has reported and is not durable yet
``credit``        how many tasks it takes
``outbox``        what else it has to send
``events``        what it has the stream process do
``session``       the gRPC stream that it is spoken over
``fleet``         which runner gets which task; ``given`` is what it knows of one
``losses``        what a runner's death means for the tasks that it had
``supervision``   restarts, timeouts, and what runners cannot report themselves
``runners``       runner processes: started, watched, killed
``link``          the stream process's end of a socket pair
``framing``       how messages are cut apart on it
``pacing``        how many tasks are fetched in advance
``attempts``      what a failed attempt is reported as
``worker``        ``dalsegno worker``: runners of a module or file
``script``        the stream process of a script that is a runner itself; ``attach`` starts it
``runner``        the runner's side: no gRPC in here
================  =====================================================================================
"""
