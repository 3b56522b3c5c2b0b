"""One test or several for each rule of the semantics: what must hold where two things happen at once."""
