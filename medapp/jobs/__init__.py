"""The queue in the window, the worker at the other end."""
