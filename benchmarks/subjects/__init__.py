"""What is measured: one file per subject. A file is imported only in the process that measures it."""
