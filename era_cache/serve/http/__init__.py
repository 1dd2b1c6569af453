"""The HTTP server: embeddings as OpenAI's clients ask for them, searches, and the search page.

In: adapters with their models, and what is searched. Out: a Starlette application, and the server
that runs it. Models run in one thread; what waits for it is bounded.
"""
