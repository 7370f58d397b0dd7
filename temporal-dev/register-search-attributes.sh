#!/bin/sh
# Creates the namespace and registers the search attributes on the server at TEMPORAL_ADDRESS.
# Usage: register-search-attributes.sh search-attributes.toml. Safe to repeat: what exists is left as it is.
set -eu

file=$1
namespace=${TEMPORAL_NAMESPACE:-default}

if ! temporal operator namespace describe --namespace "$namespace" >/dev/null 2>&1; then
    temporal operator namespace create --namespace "$namespace" --retention 7d
fi

wanted=$(awk '/^\[/ { gsub(/[][]/, ""); name = $1 } /^type *=/ { gsub(/"/, ""); print name, $NF }' "$file")
set --
while read -r name type; do
    set -- "$@" --name "$name" --type "$type"
done <<EOF
$wanted
EOF

# The server learns of a new namespace when it next refreshes its list, every few seconds.
attempts=0
until temporal operator search-attribute create --namespace "$namespace" "$@"; do
    attempts=$((attempts + 1))
    if [ "$attempts" -ge 30 ]; then
        echo "Search attributes could not be registered in namespace $namespace of $TEMPORAL_ADDRESS; see above." >&2
        exit 1
    fi
    sleep 1
done
