"""What runs a function as a task: this machine's Python for tasks, and the kit that goes along."""

from meshpeer.adapters.interpreter.interpreter import TaskInterpreter

__all__ = ["TaskInterpreter"]
