"""Research scripts, thin: parse, call the library, print a table, write JSON and pictures."""
