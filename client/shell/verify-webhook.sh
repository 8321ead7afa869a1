#!/bin/sh
# Check the signature of a webhook by hand, with openssl:
#
#     verify-webhook.sh KEY ID TIMESTAMP SIGNATURES < body
#
# KEY         whsec_... (v1) or whpk_... (v1a; OpenSSL 3)
# ID, TIMESTAMP, SIGNATURES   the headers webhook-id, webhook-timestamp and webhook-signature
# NOW         in the environment: unix seconds instead of this machine's clock
#
# Exit 0: signed by this key within the last 300 seconds. 1: not. 2: the key has another form.
# For your own machine: while openssl runs, the list of processes shows the secret.
set -eu

[ $# -eq 4 ] || { echo "usage: ${0##*/} KEY ID TIMESTAMP SIGNATURES < body" >&2; exit 2; }
key=$1 id=$2 timestamp=$3 signatures=$4
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

refuse() { echo "refused: $1" >&2; exit 1; }

case $id in '') refuse "the header webhook-id is missing" ;; esac
case $signatures in '') refuse "the header webhook-signature is missing" ;; esac
case $timestamp in '' | 0?* | *[!0-9]*) refuse "webhook-timestamp is not a number of seconds" ;; esac
age=$((${NOW:-$(date +%s)} - timestamp))
{ [ "$age" -le 300 ] && [ "$age" -ge -300 ]; } || refuse "signed $age seconds ago"

{ printf '%s.%s.' "$id" "$timestamp"; cat; } > "$work/signed"

case $key in
    whsec_*)
        hex=$(printf %s "${key#whsec_}" | openssl base64 -d -A | od -An -v -tx1 | tr -d ' \n')
        [ -n "$hex" ] || { echo "not base64: the key" >&2; exit 2; }
        right=v1,$(openssl dgst -sha256 -mac HMAC -macopt "hexkey:$hex" -binary < "$work/signed" | openssl base64 -A)
        for signature in $signatures; do
            [ "$signature" = "$right" ] && { echo "right"; exit 0; }
        done
        ;;
    whpk_*)
        # The 12 bytes before the key say "ed25519 public key" (RFC 8410).
        { printf '\060\052\060\005\006\003\053\145\160\003\041\000'
          printf %s "${key#whpk_}" | openssl base64 -d -A; } > "$work/key"
        for signature in $signatures; do
            case $signature in v1a,*) ;; *) continue ;; esac
            printf %s "${signature#v1a,}" | openssl base64 -d -A > "$work/signature"
            openssl pkeyutl -verify -pubin -keyform DER -inkey "$work/key" -rawin -in "$work/signed" \
                -sigfile "$work/signature" > "$work/said" 2>&1 && { echo "right"; exit 0; }
        done
        ;;
    *) echo "a key begins with whsec_ or whpk_" >&2; exit 2 ;;
esac
refuse "no signature is right for this body and this key"
