"""How names of the core become names of the package: ``@public``, overloads, signatures, missing and lazy names."""
