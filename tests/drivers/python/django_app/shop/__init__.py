"""A small application: the tables of a shop, made by migrations, used through the object-relational mapper."""
