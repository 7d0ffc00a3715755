CREATE TABLE ledger_api_keys (
	id TEXT COLLATE "C" NOT NULL,
	tenant TEXT COLLATE "C" NOT NULL,
	name TEXT NOT NULL,
	scopes TEXT NOT NULL,
	secret_sha256 TEXT COLLATE "C" NOT NULL,
	created_at DOUBLE PRECISION NOT NULL,
	revoked_at DOUBLE PRECISION,
	PRIMARY KEY (id),
	UNIQUE (secret_sha256)
);
CREATE TABLE ledger_collections (
	id TEXT COLLATE "C" NOT NULL,
	tenant TEXT COLLATE "C" NOT NULL,
	name TEXT COLLATE "C" NOT NULL,
	version BIGINT NOT NULL,
	options TEXT NOT NULL,
	documents BIGINT NOT NULL,
	chunks BIGINT NOT NULL,
	created_at DOUBLE PRECISION NOT NULL,
	deleted_at DOUBLE PRECISION,
	PRIMARY KEY (id)
);
CREATE UNIQUE INDEX ledger_collections_by_name ON ledger_collections (tenant, name) WHERE deleted_at IS NULL;
CREATE TABLE ledger_schema (
	version INTEGER NOT NULL
);
CREATE TABLE ledger_documents (
	id TEXT COLLATE "C" NOT NULL,
	tenant TEXT COLLATE "C" NOT NULL,
	collection_id TEXT COLLATE "C" NOT NULL,
	name TEXT COLLATE "C" NOT NULL,
	status TEXT COLLATE "C" NOT NULL,
	version INTEGER NOT NULL,
	version_id TEXT COLLATE "C" NOT NULL,
	searchable_version INTEGER NOT NULL,
	searchable_version_id TEXT COLLATE "C",
	created_at DOUBLE PRECISION NOT NULL,
	deleted_at DOUBLE PRECISION,
	PRIMARY KEY (id),
	FOREIGN KEY(collection_id) REFERENCES ledger_collections (id)
);
CREATE INDEX ledger_documents_by_collection ON ledger_documents (collection_id, id);
CREATE UNIQUE INDEX ledger_documents_by_name ON ledger_documents (collection_id, name) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX ledger_documents_by_searchable_version ON ledger_documents (searchable_version_id);
CREATE INDEX ledger_documents_by_status ON ledger_documents (collection_id, status, id);
CREATE INDEX ledger_documents_by_tenant ON ledger_documents (tenant, id);
CREATE TABLE ledger_versions (
	id TEXT COLLATE "C" NOT NULL,
	document_id TEXT COLLATE "C" NOT NULL,
	number INTEGER NOT NULL,
	sha256 TEXT COLLATE "C" NOT NULL,
	size_bytes BIGINT NOT NULL,
	media_type TEXT COLLATE "C" NOT NULL,
	metadata TEXT NOT NULL,
	job_id TEXT COLLATE "C" NOT NULL,
	status TEXT COLLATE "C" NOT NULL,
	pages INTEGER NOT NULL,
	chunks INTEGER NOT NULL,
	error TEXT,
	purge SMALLINT NOT NULL,
	updated_at DOUBLE PRECISION NOT NULL,
	PRIMARY KEY (id),
	UNIQUE (document_id, number),
	FOREIGN KEY(document_id) REFERENCES ledger_documents (id)
);
CREATE INDEX ledger_versions_by_sha256 ON ledger_versions (sha256);
CREATE INDEX ledger_versions_pending ON ledger_versions (id) WHERE status = 'pending';
CREATE INDEX ledger_versions_to_purge ON ledger_versions (purge, updated_at) WHERE purge > 0;
CREATE TABLE ledger_chunks (
	collection_id TEXT COLLATE "C" NOT NULL,
	id TEXT COLLATE "C" NOT NULL,
	version_id TEXT COLLATE "C" NOT NULL,
	position INTEGER NOT NULL,
	text TEXT NOT NULL,
	start INTEGER NOT NULL,
	"end" INTEGER NOT NULL,
	tokens INTEGER NOT NULL,
	page INTEGER,
	headings TEXT NOT NULL,
	PRIMARY KEY (collection_id, id),
	UNIQUE (version_id, position),
	FOREIGN KEY(version_id) REFERENCES ledger_versions (id)
);
