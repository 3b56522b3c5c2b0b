"""Traces of invocations, as OpenTelemetry knows them: which span each thing is, when it is told, and to whom."""
