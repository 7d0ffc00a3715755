"""Archives to files, in processes that may be killed."""
