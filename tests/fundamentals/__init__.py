"""The product as a tutorial: one concept in each file, in order. Each test is a sentence about it."""
