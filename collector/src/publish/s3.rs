//! PUT of one object as S3 wants it, with a lock on it.
//!
//! Owns the signature (AWS Signature Version 4, "Authenticating Requests: Using the Authorization Header") and the headers
//! of the lock ("Configuring S3 Object Lock"). Own code, as the client of `object_store`, by which the store is kept,
//! knows nothing of locks. What is sent takes one chunk.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, Mac};
use hyper::Method;
use sha2::{Digest, Sha256};

use super::http::{Answer, Server};
use crate::config::PushConfig;

/// A bucket, path style: the URL's path begins with its name.
pub(super) struct Bucket {
    server: Server,
    region: String,
    lock_days: Option<u32>,
    keys: Keys,
}

/// Who asks.
struct Keys {
    id: String,
    secret: String,
}

/// Without the keys.
impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bucket")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

impl Bucket {
    pub(super) fn new(server: Server, config: &PushConfig) -> anyhow::Result<Self> {
        let keys = config.credentials.as_ref();
        let path = keys
            .context("an s3 place needs credentials = \"FILE\": the key's id and the secret, a line each")?;
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the credentials {}", path.display()))?;
        let mut lines = text.lines().map(str::trim);
        let (id, secret) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        ensure!(
            !id.is_empty() && !secret.is_empty(),
            "{} does not hold the key's id and the secret, a line each",
            path.display()
        );
        Ok(Self {
            server,
            region: config.region.clone().unwrap_or_else(|| "us-east-1".to_owned()),
            lock_days: config.lock_days,
            keys: Keys {
                id: id.to_owned(),
                secret: secret.to_owned(),
            },
        })
    }

    /// Puts an object there.
    pub(super) async fn put(&self, name: &str, body: Vec<u8>) -> anyhow::Result<Answer> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let mut headers = vec![
            ("content-type".to_owned(), "text/plain; charset=utf-8".to_owned()),
            // With a lock, S3 wants a checksum.
            (
                "x-amz-checksum-sha256".to_owned(),
                BASE64_STANDARD.encode(Sha256::digest(&body)),
            ),
        ];
        if let Some(days) = self.lock_days {
            let until = instant(now + u64::from(days) * 86_400, "%Y-%m-%dT%H:%M:%SZ");
            headers.push(("x-amz-object-lock-mode".to_owned(), "COMPLIANCE".to_owned()));
            headers.push(("x-amz-object-lock-retain-until-date".to_owned(), until));
        }
        let below = format!("/{name}");
        let path = format!("{}{below}", self.server.path);
        let signed = sign(
            &self.keys,
            &self.region,
            &self.server.host,
            &path,
            headers,
            &body,
            now,
        );
        self.server.send(Method::PUT, &below, &signed, body).await
    }
}

/// The headers, with those that sign them.
fn sign(
    keys: &Keys,
    region: &str,
    host: &str,
    path: &str,
    mut headers: Vec<(String, String)>,
    body: &[u8],
    now: u64,
) -> Vec<(String, String)> {
    let digest = hex::encode(Sha256::digest(body));
    let (date, time) = (instant(now, "%Y%m%d"), instant(now, "%Y%m%dT%H%M%SZ"));
    headers.push(("x-amz-content-sha256".to_owned(), digest.clone()));
    headers.push(("x-amz-date".to_owned(), time.clone()));
    let mut canonical: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
    canonical.push(("host", host));
    canonical.sort_unstable();
    let names: Vec<&str> = canonical.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let lines: String = canonical
        .iter()
        .map(|(name, value)| format!("{name}:{}\n", value.trim()))
        .collect();
    let path = encoded(path);
    let request = format!("PUT\n{path}\n\n{lines}\n{names}\n{digest}");
    let scope = format!("{date}/{region}/s3/aws4_request");
    let text = format!(
        "AWS4-HMAC-SHA256\n{time}\n{scope}\n{}",
        hex::encode(Sha256::digest(request))
    );
    let first = format!("AWS4{}", keys.secret).into_bytes();
    let key = [date.as_str(), region, "s3", "aws4_request"]
        .iter()
        .fold(first, |key, part| keyed(&key, part.as_bytes()));
    let signature = hex::encode(keyed(&key, text.as_bytes()));
    let value = format!(
        "AWS4-HMAC-SHA256 Credential={}/{scope},SignedHeaders={names},Signature={signature}",
        keys.id
    );
    headers.push(("authorization".to_owned(), value));
    headers
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
fn keyed(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length");
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

/// Percent-encodes a path but for its slashes.
fn encoded(path: &str) -> String {
    path.split('/')
        .map(crate::http::client::percent)
        .collect::<Vec<_>>()
        .join("/")
}

fn instant(unix_s: u64, format: &str) -> String {
    let at = i64::try_from(unix_s)
        .ok()
        .and_then(|at| jiff::Timestamp::from_second(at).ok());
    at.unwrap_or_default().strftime(format).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example "PUT Object" of the specification's text.
    #[test]
    fn the_published_example() {
        let keys = Keys {
            id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
        };
        let headers = vec![
            ("date".to_owned(), "Fri, 24 May 2013 00:00:00 GMT".to_owned()),
            ("x-amz-storage-class".to_owned(), "REDUCED_REDUNDANCY".to_owned()),
        ];
        let host = "examplebucket.s3.amazonaws.com";
        let body = b"Welcome to Amazon S3.";
        let signed = sign(
            &keys,
            "us-east-1",
            host,
            "/test$file.text",
            headers,
            body,
            1_369_353_600,
        );
        let (_, value) = signed.last().unwrap();
        assert_eq!(
            value,
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,\
             SignedHeaders=date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class,\
             Signature=98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"
        );
    }
}
