#!/usr/bin/env bash
# Checks the promises of `Idempotency-Key` from outside, with nothing but bash, curl and openssl.
#
#   export PROBITY_GATEWAY=http://127.0.0.1:40003 PROBITY_API_KEY=... PROBITY_API_SECRET=...
#   ./test-idempotency.sh
#
# `cargo demo -- --serve` prints the three variables. Exit code 0: every check holds. 1: one does not, and is named.
# 2: a variable or a program is missing.
set -uo pipefail

for name in PROBITY_GATEWAY PROBITY_API_KEY PROBITY_API_SECRET; do
    [ -n "${!name:-}" ] || { echo "set $name" >&2; exit 2; }
done
for program in curl openssl; do
    command -v "$program" > /dev/null || { echo "install $program" >&2; exit 2; }
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
run=$(openssl rand -hex 6)
failed=0

# send METHOD PATH BODY KEY FILE: the status goes to FILE.status, headers and body beside it.
send() {
    local method=$1 path=$2 body=$3 key=$4 file=$5 now nonce hash signature
    now=$(date +%s)
    nonce=$(openssl rand -hex 16)
    hash=$(printf '%s' "$body" | openssl dgst -sha256 -r | cut -d' ' -f1)
    signature=$(printf '%s\n%s\n%s\n%s\n%s' "$method" "$path" "$now" "$nonce" "$hash" |
        openssl dgst -sha256 -hmac "$PROBITY_API_SECRET" -r | cut -d' ' -f1)
    local arguments=(-s --noproxy '*' -m 60 -X "$method" -D "$file.headers" -o "$file.body" -w '%{http_code}'
        -H "X-API-Key: $PROBITY_API_KEY" -H "X-Timestamp: $now" -H "X-Nonce: $nonce" -H "X-Signature: $signature")
    if [ "$method" = POST ]; then
        arguments+=(-H 'Content-Type: application/json' --data-binary "$body")
        [ -z "$key" ] || arguments+=(-H "Idempotency-Key: $key")
    fi
    curl "${arguments[@]}" "$PROBITY_GATEWAY$path" > "$file.status" || echo 000 > "$file.status"
}

pay() { send POST /api/v1/payments "$1" "$2" "$work/$3"; }
status() { cat "$work/$1.status"; }
replayed() { grep -qi '^idempotent-replayed: true' "$work/$1.headers"; }
field() { grep -o "\"$2\":\"[^\"]*\"" "$work/$1.body" | head -n 1 | cut -d'"' -f4; }
order() { printf '{"order_no":"%s","amount":%s,"currency":"EUR","payment_method":"card_ok"}' "$1" "$2"; }

check() {
    local what=$1
    shift
    if "$@"; then
        echo "holds: $what"
    else
        echo "DOES NOT HOLD: $what" >&2
        failed=1
    fi
}

body=$(order "sh-$run-1" 1000)
pay "$body" "sh-$run-1" first
check "a payment answers 201 ($(status first))" [ "$(status first)" = 201 ]
check "the first answer is not a replay" eval '! replayed first'
pay "$body" "sh-$run-1" again
check "the same key and body answer 201 again ($(status again))" [ "$(status again)" = 201 ]
check "the repetition says Idempotent-Replayed: true" replayed again
check "the repetition has the same bytes" cmp -s "$work/first.body" "$work/again.body"

pay "$(order "sh-$run-1" 2000)" "sh-$run-1" other
check "the same key with another body answers 422 ($(status other))" [ "$(status other)" = 422 ]
pay "$(order "sh-$run-2" 1000)" "" none
check "a payment without a key is refused with 400 ($(status none))" [ "$(status none)" = 400 ]
check "refusals are problem documents" grep -qi '^content-type: application/problem+json' "$work/none.headers"
pay "$body" "sh-$run-other-key" second
check "another key for the same order is refused with 409 ($(status second))" [ "$(status second)" = 409 ]

# Twenty at once with one key: one payment; who comes while it runs is told to wait, or waits and gets its answer.
racing=$(order "sh-$run-race" 3000)
for n in $(seq 20); do
    pay "$racing" "sh-$run-race" "race-$n" &
done
wait
numbers=$(for n in $(seq 20); do field "race-$n" payment_no; done | sort -u | grep -c .)
check "twenty requests at once make one payment ($numbers)" [ "$numbers" = 1 ]
strange=$(for n in $(seq 20); do status "race-$n"; echo; done | grep -vcE '^(201|409|)$')
check "each of the twenty is answered 201 or 409 ($strange others)" [ "$strange" = 0 ]
pay "$racing" "sh-$run-race" settled
check "after the race the key answers 201 ($(status settled))" [ "$(status settled)" = 201 ]
check "after the race the key says Idempotent-Replayed: true" replayed settled

send GET "/api/v1/payments?order_no=sh-$run-race" "" "" "$work/list"
listed=$(grep -o "\"payment_no\"" "$work/list.body" | grep -c .)
check "the list has one payment of the raced order ($listed)" [ "$listed" = 1 ]

[ "$failed" = 0 ] && echo "every check holds"
exit "$failed"
