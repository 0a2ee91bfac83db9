"""Write the pages to look at and review in; may import runs, labels, attribution, data, retrieval, system."""
