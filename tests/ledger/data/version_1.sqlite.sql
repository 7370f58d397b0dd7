BEGIN TRANSACTION;
CREATE TABLE answers (
	tenant VARCHAR(64) NOT NULL, 
	plan_version VARCHAR(64) NOT NULL, 
	masked_sha256 VARCHAR(64) NOT NULL, 
	content_sha256 VARCHAR(64) NOT NULL, 
	content_size INTEGER NOT NULL, 
	passages_sha256 VARCHAR(64), 
	passages_size INTEGER, 
	request_id VARCHAR(64) NOT NULL, 
	created_at DATETIME NOT NULL, 
	PRIMARY KEY (tenant, plan_version, masked_sha256)
);
INSERT INTO "answers" VALUES('acme','v1','bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb','98b7ffb75c92d1ee0aa83bddb7cf2cf313e45b3bd3c4221acec7b05e3f5bf630',7,NULL,NULL,'req_old','2026-11-20 12:00:00.000000');
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
	opened_at DATETIME NOT NULL, 
	settled_at DATETIME, 
	settlement_sha256 VARCHAR(64), 
	PRIMARY KEY (request_id, ordinal)
);
INSERT INTO "attempts" VALUES('req_old',1,'acme',1,'large','m','settled',400,'0.40',90,0,0,60,'0.15','ok','m-2026','stop','98b7ffb75c92d1ee0aa83bddb7cf2cf313e45b3bd3c4221acec7b05e3f5bf630',7,NULL,NULL,'2026-11-20 11:59:00.000000','2026-11-20 11:59:01.000000','87887add6de34199f66fab7721b0fbea0914c6e66f8636c62129c173d6597897');
INSERT INTO "attempts" VALUES('req_held',1,'acme',1,'large','m','held',400,'0.40',100,0,0,300,'0.40',NULL,NULL,NULL,NULL,NULL,NULL,NULL,'2026-11-20 11:59:00.000000',NULL,NULL);
CREATE TABLE contents (
	tenant VARCHAR(64) NOT NULL, 
	sha256 VARCHAR(64) NOT NULL, 
	size INTEGER NOT NULL, 
	text BLOB NOT NULL, 
	created_at DATETIME NOT NULL, 
	PRIMARY KEY (tenant, sha256)
);
INSERT INTO "contents" VALUES('acme','3ae670ca347f5e625f9e99c36737f00d8ef5e02a73d517397508b81746bc449b',17,X'576861742069732061207769646765743F','2026-11-20 11:58:00.000000');
INSERT INTO "contents" VALUES('acme','98b7ffb75c92d1ee0aa83bddb7cf2cf313e45b3bd3c4221acec7b05e3f5bf630',7,X'4120706172742E','2026-11-20 11:58:00.000000');
INSERT INTO "contents" VALUES('acme','956a58815a218cfe11b44671913c349957c8b561d696956697b4cf5a7d851015',33,X'7B2274657874223A224120706172742E222C226369746174696F6E73223A5B5D7D','2026-11-20 11:58:00.000000');
CREATE TABLE deployment_health (
	deployment VARCHAR(64) NOT NULL, 
	consecutive_failures INTEGER NOT NULL, 
	down_until DATETIME, 
	reason VARCHAR(256), 
	PRIMARY KEY (deployment)
);
INSERT INTO "deployment_health" VALUES('large',1,NULL,NULL);
CREATE TABLE requests (
	tenant VARCHAR(64) NOT NULL, 
	request_id VARCHAR(64) NOT NULL, 
	user VARCHAR(128) NOT NULL, 
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
	submitted_at DATETIME NOT NULL, 
	finished_at DATETIME NOT NULL, 
	PRIMARY KEY (tenant, request_id)
);
INSERT INTO "requests" VALUES('acme','req_old','ada','docs','v1','chat-7','standard','completed',NULL,'956a58815a218cfe11b44671913c349957c8b561d696956697b4cf5a7d851015',33,'98b7ffb75c92d1ee0aa83bddb7cf2cf313e45b3bd3c4221acec7b05e3f5bf630','large',0,90,0,0,60,'0.15',1,NULL,'2026-11-20 12:00:00.000000','2026-11-20 12:00:00.000000');
CREATE TABLE schema_version (
	version INTEGER NOT NULL, 
	PRIMARY KEY (version)
);
INSERT INTO "schema_version" VALUES(1);
CREATE TABLE submissions (
	tenant VARCHAR(64) NOT NULL, 
	idempotency_key VARCHAR(256) NOT NULL, 
	body_sha256 VARCHAR(64) NOT NULL, 
	request_id VARCHAR(64) NOT NULL, 
	created_at DATETIME NOT NULL, 
	PRIMARY KEY (tenant, idempotency_key)
);
INSERT INTO "submissions" VALUES('acme','key 1','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','req_old','2026-11-20 11:58:00.000000');
CREATE TABLE vault (
	tenant VARCHAR(64) NOT NULL, 
	request_id VARCHAR(64) NOT NULL, 
	mapping JSON NOT NULL, 
	PRIMARY KEY (tenant, request_id)
);
INSERT INTO "vault" VALUES('acme','req_held','{"<EMAIL_1>": "ada@example.org"}');
CREATE INDEX requests_by_tenant ON requests (tenant, finished_at, request_id);
COMMIT;
