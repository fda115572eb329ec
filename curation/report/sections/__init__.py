"""The report's sections: pure functions from the numbers to blocks of text, tables, charts and pictures."""
