CREATE TABLE answers (
    tenant VARCHAR(64) NOT NULL, 
    plan_version VARCHAR(64) NOT NULL, 
    masked_sha256 VARCHAR(64) NOT NULL, 
    content_sha256 VARCHAR(64) NOT NULL, 
    content_size INTEGER NOT NULL, 
    passages_sha256 VARCHAR(64), 
    passages_size INTEGER, 
    request_id VARCHAR(64) NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    PRIMARY KEY (tenant, plan_version, masked_sha256)
);
CREATE TABLE attempts (
    request_id VARCHAR(64) NOT NULL, 
    ordinal INTEGER NOT NULL, 
    tenant VARCHAR(64) NOT NULL, 
    turn INTEGER NOT NULL, 
    deployment VARCHAR(64) NOT NULL, 
    model VARCHAR(256) NOT NULL, 
    state VARCHAR(16) NOT NULL, 
    hold_tokens INTEGER NOT NULL, 
    hold_cost_usd VARCHAR(48), 
    input_tokens INTEGER NOT NULL, 
    cache_read_tokens INTEGER NOT NULL, 
    cache_write_tokens INTEGER NOT NULL, 
    output_tokens INTEGER NOT NULL, 
    cost_usd VARCHAR(48), 
    outcome VARCHAR(32), 
    answered_by VARCHAR(256), 
    finish_reason VARCHAR(32), 
    output_sha256 VARCHAR(64), 
    output_size INTEGER, 
    response_id VARCHAR(256), 
    error_code VARCHAR(128), 
    opened_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    settled_at TIMESTAMP WITH TIME ZONE, 
    settlement_sha256 VARCHAR(64), 
    PRIMARY KEY (request_id, ordinal)
);
CREATE TABLE contents (
    tenant VARCHAR(64) NOT NULL, 
    sha256 VARCHAR(64) NOT NULL, 
    size INTEGER NOT NULL, 
    text BYTEA NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    PRIMARY KEY (tenant, sha256)
);
CREATE TABLE deployment_health (
    deployment VARCHAR(64) NOT NULL, 
    consecutive_failures INTEGER NOT NULL, 
    down_until TIMESTAMP WITH TIME ZONE, 
    reason VARCHAR(256), 
    PRIMARY KEY (deployment)
);
CREATE TABLE requests (
    tenant VARCHAR(64) NOT NULL, 
    request_id VARCHAR(64) NOT NULL, 
    "user" VARCHAR(128) NOT NULL, 
    agent VARCHAR(64) NOT NULL, 
    plan_version VARCHAR(64) NOT NULL, 
    session VARCHAR(128), 
    tier VARCHAR(32) NOT NULL, 
    status VARCHAR(16) NOT NULL, 
    reason TEXT, 
    document_sha256 VARCHAR(64), 
    document_size INTEGER, 
    content_sha256 VARCHAR(64), 
    deployment VARCHAR(64), 
    recalled BOOLEAN NOT NULL, 
    input_tokens INTEGER NOT NULL, 
    cache_read_tokens INTEGER NOT NULL, 
    cache_write_tokens INTEGER NOT NULL, 
    output_tokens INTEGER NOT NULL, 
    cost_usd VARCHAR(48), 
    attempts INTEGER NOT NULL, 
    decided_by VARCHAR(128), 
    submitted_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    finished_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    PRIMARY KEY (tenant, request_id)
);
CREATE INDEX requests_by_tenant ON requests (tenant, finished_at, request_id);
CREATE TABLE schema_version (
    version INTEGER NOT NULL, 
    PRIMARY KEY (version)
);
CREATE TABLE submissions (
    tenant VARCHAR(64) NOT NULL, 
    idempotency_key VARCHAR(256) NOT NULL, 
    body_sha256 VARCHAR(64) NOT NULL, 
    request_id VARCHAR(64) NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    PRIMARY KEY (tenant, idempotency_key)
);
CREATE TABLE vault (
    tenant VARCHAR(64) NOT NULL, 
    request_id VARCHAR(64) NOT NULL, 
    mapping JSON NOT NULL, 
    PRIMARY KEY (tenant, request_id)
);
INSERT INTO answers ("tenant", "plan_version", "masked_sha256", "content_sha256", "content_size", "passages_sha256", "passages_size", "request_id", "created_at") VALUES ('acme', 'v1', 'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', '98b7ffb75c92d1ee0aa83bddb7cf2cf313e45b3bd3c4221acec7b05e3f5bf630', 7, NULL, NULL, 'req_old', '2026-11-20 12:00:00.000000+00');
INSERT INTO attempts ("request_id", "ordinal", "tenant", "turn", "deployment", "model", "state", "hold_tokens", "hold_cost_usd", "input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "cost_usd", "outcome", "answered_by", "finish_reason", "output_sha256", "output_size", "response_id", "error_code", "opened_at", "settled_at", "settlement_sha256") VALUES ('req_old', 1, 'acme', 1, 'large', 'm', 'settled', 400, '0.40', 90, 0, 0, 60, '0.15', 'ok', 'm-2026', 'stop', '98b7ffb75c92d1ee0aa83bddb7cf2cf313e45b3bd3c4221acec7b05e3f5bf630', 7, NULL, NULL, '2026-11-20 11:59:00.000000+00', '2026-11-20 11:59:01.000000+00', '87887add6de34199f66fab7721b0fbea0914c6e66f8636c62129c173d6597897');
INSERT INTO attempts ("request_id", "ordinal", "tenant", "turn", "deployment", "model", "state", "hold_tokens", "hold_cost_usd", "input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "cost_usd", "outcome", "answered_by", "finish_reason", "output_sha256", "output_size", "response_id", "error_code", "opened_at", "settled_at", "settlement_sha256") VALUES ('req_held', 1, 'acme', 1, 'large', 'm', 'held', 400, '0.40', 100, 0, 0, 300, '0.40', NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-20 11:59:00.000000+00', NULL, NULL);
INSERT INTO contents ("tenant", "sha256", "size", "text", "created_at") VALUES ('acme', '3ae670ca347f5e625f9e99c36737f00d8ef5e02a73d517397508b81746bc449b', 17, '\x576861742069732061207769646765743f', '2026-11-20 11:58:00.000000+00');
INSERT INTO contents ("tenant", "sha256", "size", "text", "created_at") VALUES ('acme', '98b7ffb75c92d1ee0aa83bddb7cf2cf313e45b3bd3c4221acec7b05e3f5bf630', 7, '\x4120706172742e', '2026-11-20 11:58:00.000000+00');
INSERT INTO contents ("tenant", "sha256", "size", "text", "created_at") VALUES ('acme', '956a58815a218cfe11b44671913c349957c8b561d696956697b4cf5a7d851015', 33, '\x7b2274657874223a224120706172742e222c226369746174696f6e73223a5b5d7d', '2026-11-20 11:58:00.000000+00');
INSERT INTO deployment_health ("deployment", "consecutive_failures", "down_until", "reason") VALUES ('large', 1, NULL, NULL);
INSERT INTO requests ("tenant", "request_id", "user", "agent", "plan_version", "session", "tier", "status", "reason", "document_sha256", "document_size", "content_sha256", "deployment", "recalled", "input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "cost_usd", "attempts", "decided_by", "submitted_at", "finished_at") VALUES ('acme', 'req_old', 'ada', 'docs', 'v1', 'chat-7', 'standard', 'completed', NULL, '956a58815a218cfe11b44671913c349957c8b561d696956697b4cf5a7d851015', 33, '98b7ffb75c92d1ee0aa83bddb7cf2cf313e45b3bd3c4221acec7b05e3f5bf630', 'large', false, 90, 0, 0, 60, '0.15', 1, NULL, '2026-11-20 12:00:00.000000+00', '2026-11-20 12:00:00.000000+00');
INSERT INTO schema_version ("version") VALUES (1);
INSERT INTO submissions ("tenant", "idempotency_key", "body_sha256", "request_id", "created_at") VALUES ('acme', 'key 1', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'req_old', '2026-11-20 11:58:00.000000+00');
INSERT INTO vault ("tenant", "request_id", "mapping") VALUES ('acme', 'req_held', '{"<EMAIL_1>": "ada@example.org"}');
