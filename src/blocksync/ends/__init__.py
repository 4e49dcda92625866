"""The two ends of a pass over a wire: the source's and the target's. Either may be the near one."""
