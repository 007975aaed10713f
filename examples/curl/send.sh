#!/bin/sh
# Sends a notification: ./send.sh "The backup is done." [channel] [low|normal|high]
# Needs CONDUCTOR_URL and CONDUCTOR_KEY in the environment.
set -eu

message=$1
channel=${2:-log}
priority=${3:-normal}

# JSON wants quotation marks, backslashes and line breaks escaped.
escaped=$(printf '%s' "$message" | sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' | awk 'NR > 1 { printf "\\n" } { printf "%s", $0 }')

# The same key in every try: a repeated request makes no second notification.
key=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')

curl --silent --show-error --fail-with-body \
  --retry 5 --retry-connrefused --max-time 30 \
  --header "Authorization: Bearer $CONDUCTOR_KEY" \
  --header "Content-Type: application/json" \
  --header "Idempotency-Key: $key" \
  --data "{\"channel\": \"$channel\", \"message\": \"$escaped\", \"priority\": \"$priority\"}" \
  "$CONDUCTOR_URL/notifications"
