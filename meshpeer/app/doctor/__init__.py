"""The doctor: what is looked at becomes findings, by pure judgements, each with what mends it.

``machine`` and ``firewall`` judge what the command line sees of this machine, with or without an agent;
``tunnels``, ``reached`` and ``members`` what the agent knows. Observers are elsewhere: ``adapters.machine``
and ``app.api_doctor``.
"""
