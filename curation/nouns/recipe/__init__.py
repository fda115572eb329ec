"""How the shipped tagger is made: treebanks to training text, `spacy train`, and the measurements of its card."""
