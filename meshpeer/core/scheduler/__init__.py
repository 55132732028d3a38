"""The scheduler: owners grant, workers run, thieves balance. Sans-IO; ``machine.Scheduler`` is the door.

Every node is owner of the jobs submitted at it, worker for all owners, and thief of whoever has more to do::

    messages   frames, events, effects: what travels, what happened, what is wanted
    rows       what rests in the journal (JOBS, TASKS, RESULTS, GRANTS)
    tables     the two lives: a task's at its owner, an attempt's at its worker
    book       owner: what became of each task, and which are ready
    seats      owner: the workers that it can grant to
    owner      owner: leases, grants, commits
    offers     worker: stored results until they are acknowledged
    worker     worker: queued, running, stored
    stealing   thief and victim
    views      read models

An attempt is granted, never assumed: its lease lives as long as its worker names it. A result is stored, then
offered, then committed once, then acknowledged. So any message may be lost, late, doubled or out of order;
what that costs is an attempt that runs twice, never a result that counts twice.
"""
