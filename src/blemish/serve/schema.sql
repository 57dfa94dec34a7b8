CREATE TABLE products (
    id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, created_at REAL NOT NULL,
    active_version TEXT NOT NULL DEFAULT '', settings TEXT NOT NULL, secret BLOB NOT NULL
);
CREATE TABLE versions (
    id TEXT PRIMARY KEY, product TEXT NOT NULL REFERENCES products(id), number INTEGER NOT NULL, parent TEXT NOT NULL,
    change TEXT NOT NULL, details TEXT NOT NULL, scored_by TEXT NOT NULL, threshold REAL NOT NULL,
    unsure_threshold REAL NOT NULL, made_by TEXT NOT NULL, made_at REAL NOT NULL, UNIQUE (product, number)
);
CREATE TABLE good_pictures (
    product TEXT NOT NULL REFERENCES products(id), sha256 TEXT NOT NULL, name TEXT NOT NULL, added_at REAL NOT NULL,
    added_by TEXT NOT NULL, PRIMARY KEY (product, sha256)
);
CREATE TABLE parts (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, part_id TEXT NOT NULL,
    product TEXT NOT NULL REFERENCES products(id), version TEXT NOT NULL, received_at REAL NOT NULL,
    sha256 TEXT NOT NULL, name TEXT NOT NULL, source TEXT NOT NULL, prediction TEXT NOT NULL, verdict TEXT, score REAL,
    p_value REAL, threshold REAL, unsure_threshold REAL, seconds REAL NOT NULL, audit_draw REAL NOT NULL,
    audit_share REAL NOT NULL, warnings TEXT NOT NULL, statistics TEXT NOT NULL, error TEXT NOT NULL,
    decision TEXT, is_deleting INTEGER NOT NULL DEFAULT 0, has_picture INTEGER NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX parts_by_content ON parts (product, part_id, sha256) WHERE part_id != '';
CREATE INDEX parts_by_part ON parts (part_id);
CREATE INDEX parts_by_score ON parts (product, score);
CREATE INDEX parts_by_sha ON parts (sha256);
CREATE INDEX parts_by_time ON parts (product, seq);
CREATE INDEX parts_by_state ON parts (product, verdict, decision, is_deleting, audit_draw, audit_share);
CREATE TABLE reviews (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, part TEXT NOT NULL REFERENCES parts(id), decision TEXT, defect TEXT NOT NULL,
    who TEXT NOT NULL, at REAL NOT NULL, supersedes INTEGER UNIQUE
);
CREATE INDEX reviews_by_part ON reviews (part);
CREATE TABLE audit (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, who TEXT NOT NULL, what TEXT NOT NULL,
    product TEXT NOT NULL, change TEXT NOT NULL
);
CREATE TABLE jobs (
    id TEXT PRIMARY KEY, product TEXT NOT NULL, kind TEXT NOT NULL, state TEXT NOT NULL, done REAL NOT NULL,
    total INTEGER NOT NULL, facts TEXT NOT NULL, error TEXT NOT NULL, version TEXT NOT NULL, who TEXT NOT NULL,
    started_at REAL NOT NULL, ended_at REAL
);
CREATE TABLE users (
    name TEXT PRIMARY KEY, role TEXT NOT NULL, token_hash TEXT NOT NULL, created_at REAL NOT NULL
);
CREATE TABLE sessions (
    token_hash TEXT PRIMARY KEY, user TEXT NOT NULL REFERENCES users(name) ON DELETE CASCADE, expires_at REAL NOT NULL
);
CREATE TABLE webhooks (
    id TEXT PRIMARY KEY, url TEXT NOT NULL, verdicts TEXT NOT NULL, product TEXT NOT NULL, created_at REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0, next_at REAL NOT NULL DEFAULT 0, last_error TEXT NOT NULL DEFAULT '',
    dropped INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, webhook TEXT NOT NULL REFERENCES webhooks(id) ON DELETE CASCADE,
    body TEXT NOT NULL
);
CREATE INDEX outbox_by_webhook ON outbox (webhook, seq);
CREATE TABLE kept (
    name TEXT PRIMARY KEY, value TEXT NOT NULL
);
