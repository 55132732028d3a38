"""The command line: one module per group of commands, and what they share.

``main`` runs it and turns errors into two lines and an exit code. ``commands`` registers commands and
lays out help, ``asked`` holds the options that every command takes, ``show`` prints. Whatever a command
needs beyond that is imported inside it: most commands ask the agent one question, and a person waits for
the imports.
"""
