"""Text to passages. The names here are all that most of the house needs; `chunker.Chunker` does the work."""

CHUNKER_NAMES = ("recursive", "heading", "page", "tokens", "sentence")
"""`recursive`: along sections, paragraphs, lines, sentences, words, whichever fits; never across a page (the default).
`heading`: one section a passage. `page`: one page a passage. `tokens`: windows of equal length. `sentence`: whole
sentences, sharing whole sentences. A unit that is too long is cut as `recursive` does."""
