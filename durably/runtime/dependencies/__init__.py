"""What factories make for a runtime and for its activations, and when that is torn down."""
