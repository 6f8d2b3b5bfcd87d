"""Pictures without a drawing library: numpy and zlib are all that a box beside a machine needs for one."""
