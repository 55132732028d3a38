"""The scheduler: owners grant, workers run, thieves balance. Sans-IO; ``machine.Scheduler`` is the door.

Every node is owner of the jobs submitted at it, worker for all owners, and thief of whoever has more to do.
What travels between
them are the frames in ``messages``; what rests is in the journal's tables JOBS, TASKS and RESULTS.
"""
