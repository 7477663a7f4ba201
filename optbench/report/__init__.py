"""From frames and statistics to what people look at."""
