"""Values as bytes and back: serdes, codecs by type, errors, durations."""
