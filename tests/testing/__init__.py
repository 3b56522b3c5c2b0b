"""The kit that users test their actors with, tested itself."""
