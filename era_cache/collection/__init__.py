"""What is searched and asked: texts, ids, keys, judgements and splits.

In: folders as others write them. Out: checked records; a row has a key that texts alone decide.
"""
