"""Job files: YAML, TOML or JSON from disk or standard input, and the files that a job carries.

Turns text into located documents, hands them to ``core.jobs.spec``, and looks up and hashes what ``files:``
names. Nothing here decides what a job may say.
"""

from meshpeer.adapters.specfile.load import LoadedJob, load_job, load_text

__all__ = ["LoadedJob", "load_job", "load_text"]
