INSERT INTO ledger_schema VALUES (1);
INSERT INTO ledger_collections VALUES ('col_1', 'acme', 'docs', 3, '{"embedding_model":"default","chunker":"recursive","chunk_tokens":240,"chunk_overlap":32,"reranker":null}', 1, 1, 1700000000.0, NULL);
INSERT INTO ledger_documents VALUES ('doc_1', 'acme', 'col_1', 'a.txt', 'pending', 2, 'ver_2', 1, 'ver_1', 1700000000.0, NULL);
INSERT INTO ledger_versions VALUES ('ver_1', 'doc_1', 1, 'aa', 5, 'text/plain', '{"year":2024}', 'job_1', 'done', 1, 1, NULL, 0, 1700000001.0);
INSERT INTO ledger_versions VALUES ('ver_2', 'doc_1', 2, 'bb', 6, 'text/plain', '{}', 'job_2', 'pending', 0, 0, NULL, 0, 1700000002.0);
INSERT INTO ledger_chunks VALUES ('col_1', 'chk_1', 'ver_1', 0, 'Water is wet.', 0, 13, 4, NULL, '[]');
INSERT INTO ledger_api_keys VALUES ('key_1', 'acme', 'mine', '["read"]', 'c2c53d66948214258a26ca9ca845d7ac0c17f8e7', 1700000000.0, NULL);
