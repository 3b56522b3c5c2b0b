"""The `durably` command. What goes wrong in everyday use is told in a sentence, without a traceback."""
