"""Targets for fuzzing: every decoder that reads what others wrote, in one table (``table.TARGETS``).

A target takes bytes. It may end, or raise an error that it names as a refusal; anything else is a crash, and
so is a case that takes too long. Two drivers run the same table: ``tests/fuzz/test_fuzz_targets.py`` a few
seconds of it in every run of the tests, ``scripts/fuzz`` as much as one asks for, led by coverage where
atheris is to be had.

To add a target: write a function of bytes in the module that fits, and list it there in ``TARGETS``.
"""
