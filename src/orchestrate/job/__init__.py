"""A job: the folder that remembers one guest's migration between commands."""
