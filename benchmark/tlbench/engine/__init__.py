"""Floor 4, the measuring wing: suites and models to fits and measurements, carried out and recorded."""
