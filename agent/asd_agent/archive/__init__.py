"""Recordings by the thousand: found, described in parallel, judged, and decided in order of time.

recordings   what there is: files and folders of any fsspec file system, by machine and time
results      where it goes: Parquet parts by machine and day, written whole; what is done already
worker       a batch of recordings through `scoring.Pipeline`
engine       the workers: Ray Data, or processes
alarms       the results of a machine through `scoring.Decision`
calibrate, compare, report   on top of these
"""
