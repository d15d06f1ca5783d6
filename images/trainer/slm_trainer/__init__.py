"""Labels data sets with a teacher, and trains models: one file per recipe, losses and data apart."""
