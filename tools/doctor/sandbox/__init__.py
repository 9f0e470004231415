"""A completion's code in a process of its own, with limits.

parent.py starts the process and reads what it reports. In the process child.py carries
out the checks, below supervisor.py, with the limits of limits.py and watch.py.
"""
