"""Rows as the trained model reads them: where its template puts an answer, and how long rows come out."""
