"""Many images: readers of folders, tar shards, tables and data sets, writers, and the run that resumes."""
