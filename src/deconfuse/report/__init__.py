"""Write the pages that a person looks at and reviews in; may import runs, labels, attribution, data, retrieval, system."""
