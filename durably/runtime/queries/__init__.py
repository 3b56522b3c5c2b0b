"""SQL over what a runtime keeps, under the names of Restate's tables."""
