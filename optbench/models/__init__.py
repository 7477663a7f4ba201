"""Models as data: layers, initial weights, and the zoo of named architectures."""
