"""Collections: LanceDB tables of embeddings and captions."""
