"""Every example is run here, by the lines that its readers type."""
