"""The tests mirror the package: one folder per room, one file per file; `fundamentals` reads as a tutorial."""
