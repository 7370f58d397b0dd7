#!/bin/sh
# Creates and migrates Temporal's databases on the server named by SQL_HOST, SQL_PORT, SQL_USER and SQL_PASSWORD.
# Safe to repeat: `setup-schema` would set an existing database's version back to 0, so it runs only where the
# migration finds no version at all.
set -eu

migrate() {
    database=$1
    versions=/etc/temporal/schema/postgresql/v12/$2/versioned
    temporal-sql-tool --db "$database" create
    if ! temporal-sql-tool --db "$database" update-schema --schema-dir "$versions"; then
        temporal-sql-tool --db "$database" setup-schema --version 0.0
        temporal-sql-tool --db "$database" update-schema --schema-dir "$versions"
    fi
}

migrate temporal temporal
migrate temporal_visibility visibility
