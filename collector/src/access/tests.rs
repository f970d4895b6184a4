//! Users of this collector, and an issuer that speaks the real protocol, over loopback and over TLS.

use std::{
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{Json, Router, http::HeaderValue, routing::get};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};

use super::{token::UserToken, users::User, *};
use crate::{
    config::{OidcConfig, ReadersTls},
    http::Readers,
    trust::{Authorities, Tls},
};

/// Whoever has a token of the users of this folder.
pub(crate) fn over(data: &Path) -> Access {
    Access {
        users: Some(Users::in_data(data)),
        issuer: None,
        need: Need::IfAnybody,
    }
}

/// Adds a user; the token is good for so many seconds.
pub(crate) fn add(data: &Path, name: &str, role: Role, seconds: Option<i64>) -> String {
    let token = UserToken::new();
    let user = User {
        name: name.to_owned(),
        role,
        added_unix_s: unix_s(),
        expires_unix_s: seconds.map(|seconds| unix_s().saturating_add_signed(seconds)),
    };
    Users::in_data(data).add(&user, &token).unwrap();
    token.to_string()
}

/// Removes one.
pub(crate) fn remove(data: &Path, name: &str) {
    Users::in_data(data).remove(name).unwrap();
}

fn headers(token: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let value = HeaderValue::try_from(format!("Bearer {token}")).unwrap();
    headers.insert(header::AUTHORIZATION, value);
    headers
}

#[tokio::test]
async fn a_token_is_needed_from_the_first_user_on_and_nothing_of_it_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let access = over(data);
    let none = HeaderMap::new();
    assert_eq!(access.admit(&none).await, Ok(Pass::local()));
    assert_eq!(
        access.admit(&headers("of another collector")).await,
        Ok(Pass::local())
    );
    let token = add(data, "anna", Role::Analyst, None);
    assert_eq!(access.admit(&none).await, Err(Refusal::Missing));
    assert!(!access.holds(&Pass::local()), "what was open is over");
    let anna = access.admit(&headers(&token)).await.unwrap();
    assert!(anna.who() == "anna" && anna.may(Role::Analyst) && !anna.may(Role::Auditor));
    assert!(anna.is_somebody() && access.holds(&anna));
    let files = data.join("access/users");
    let kept = crate::trust::read_all::<Value>(&files).unwrap();
    let secret = token.strip_prefix("pgwu1_").unwrap();
    let bytes = hex::encode(BASE64.decode(secret).unwrap());
    for (path, user) in &kept {
        let all = format!("{} {user}", path.display());
        assert!(!all.contains(secret) && !all.contains(&bytes), "{all}");
    }
    use std::os::unix::fs::PermissionsExt as _;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&files), mode(&kept[0].0)), (0o700, 0o600));
    let twice = Users::in_data(data).add(&kept_user("anna"), &UserToken::new());
    assert!(twice.unwrap_err().to_string().contains("remove it first"));
    remove(data, "anna");
    assert!(!access.holds(&anna));
    assert_eq!(access.admit(&none).await, Ok(Pass::local()), "nobody is left");
    // A folder that cannot be read lets nobody in.
    fs::remove_dir(&files).unwrap();
    fs::write(&files, "").unwrap();
    assert!(matches!(access.admit(&none).await, Err(Refusal::Unavailable(_))));
}

fn kept_user(name: &str) -> User {
    User {
        name: name.to_owned(),
        role: Role::Viewer,
        added_unix_s: 0,
        expires_unix_s: None,
    }
}

#[tokio::test]
async fn a_request_shows_one_token_in_one_form() {
    let folder = tempfile::tempdir().unwrap();
    let token = add(folder.path(), "anna", Role::Viewer, None);
    let access = over(folder.path());
    let mut twice = headers(&token);
    twice.append(header::AUTHORIZATION, HeaderValue::from_static("Bearer x"));
    assert!(matches!(access.admit(&twice).await, Err(Refusal::Wrong(_))));
    for (value, good) in [
        (format!("bearer {token}"), true),
        (format!("Basic {token}"), false),
        (token.clone(), false),
        (format!("Bearer {token}x"), false),
        (format!("Bearer {}", &token[..token.len() - 1]), false),
        (format!("Bearer {}", UserToken::new()), false),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::try_from(&value).unwrap());
        assert_eq!(access.admit(&headers).await.is_ok(), good, "{value}");
    }
}

/// A key of an issuer.
struct Signer {
    id: &'static str,
    pair: EcdsaKeyPair,
}

impl Signer {
    fn new(id: &'static str) -> Self {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pair.as_ref(), &random).unwrap();
        Self { id, pair }
    }

    fn jwk(&self) -> Value {
        let (x, y) = self.pair.public_key().as_ref()[1..].split_at(32);
        json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.id,
            "x": BASE64.encode(x), "y": BASE64.encode(y)})
    }

    fn sign(&self, claims: &Value) -> String {
        self.sign_under(&json!({"alg": "ES256", "typ": "JWT", "kid": self.id}), claims)
    }

    fn sign_under(&self, header: &Value, claims: &Value) -> String {
        let message = message(header, claims);
        let signature = self.pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", BASE64.encode(signature))
    }
}

fn message(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| BASE64.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

/// An issuer, and how often it was asked for its keys.
struct Served {
    url: String,
    keys: Arc<Mutex<Value>>,
    asked: Arc<AtomicUsize>,
}

/// Serves discovery and keys; `says` is the issuer that it says that it is.
async fn served(tls: Option<Arc<Tls>>, says: Option<&str>, keys: &[&Signer]) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = match &tls {
        Some(_) => format!("https://localhost:{port}"),
        None => format!("http://127.0.0.1:{port}/realms/staff"),
    };
    let served = Served {
        url: url.clone(),
        keys: Arc::default(),
        asked: Arc::default(),
    };
    served.show(keys);
    let description = json!({"issuer": says.unwrap_or(&url), "jwks_uri": format!("{url}/keys")});
    let (shown, asked) = (Arc::clone(&served.keys), Arc::clone(&served.asked));
    let base = if tls.is_some() { "" } else { "/realms/staff" };
    let router = Router::new()
        .route(
            &format!("{base}/.well-known/openid-configuration"),
            get(async move || Json(description)),
        )
        .route(
            &format!("{base}/keys"),
            get(async move || {
                asked.fetch_add(1, Ordering::SeqCst);
                Json(shown.lock().unwrap().clone())
            }),
        );
    // It accepts for as long as nobody stops it, and whoever could must be there.
    let (running, stopped) = watch::channel(false);
    let readers = Readers::of(listener, tls, &Arc::default(), stopped).unwrap();
    tokio::spawn(async move {
        let _running = running;
        axum::serve(readers, router).await
    });
    served
}

impl Served {
    /// What it shows from now on, beside a key that nobody here understands.
    fn show(&self, keys: &[&Signer]) {
        let mut all = vec![json!({"kty": "OKP", "crv": "X448", "kid": "other", "x": "AA"})];
        all.extend(keys.iter().map(|key| key.jwk()));
        *self.keys.lock().unwrap() = json!({ "keys": all });
    }

    fn settings(&self) -> OidcConfig {
        OidcConfig {
            issuer: self.url.clone(),
            audience: "pgwitness".to_owned(),
            user_claim: "sub".to_owned(),
            role_claim: "realm_access.roles".to_owned(),
            roles: [
                ("dba".to_owned(), Role::Analyst),
                ("audit".to_owned(), Role::Auditor),
            ]
            .into(),
            ca: None,
            jwks: None,
        }
    }

    fn claims(&self) -> Value {
        json!({"iss": self.url, "aud": ["account", "pgwitness"], "sub": "alice", "exp": unix_s() + 300,
            "nbf": unix_s() - 1, "realm_access": {"roles": ["staff", "dba"]}})
    }

    /// The claims with some changed, or taken out (null).
    fn claims_but(&self, changed: Value) -> Value {
        let mut claims = self.claims();
        for (name, value) in changed.as_object().unwrap() {
            match value {
                Value::Null => _ = claims.as_object_mut().unwrap().remove(name),
                value => claims[name] = value.clone(),
            }
        }
        claims
    }
}

fn asked_about(settings: OidcConfig, pause: Duration) -> Access {
    let issuer = Issuer::new(settings).unwrap();
    Access {
        users: None,
        issuer: Some(issuer.asking_every(pause)),
        need: Need::IfAnybody,
    }
}

async fn refused(access: &Access, token: &str) -> String {
    match access.admit(&headers(token)).await {
        Err(Refusal::Wrong(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_issuers_users_are_let_in_by_what_it_signed_for_this_collector() {
    let key = Signer::new("one");
    let issuer = served(None, None, &[&key]).await;
    let access = asked_about(issuer.settings(), Duration::ZERO);
    let pass = access.admit(&headers(&key.sign(&issuer.claims()))).await.unwrap();
    assert_eq!(pass.who(), format!("oidc:alice@{}", issuer.url));
    assert!(pass.may(Role::Analyst) && !pass.may(Role::Auditor) && access.holds(&pass));
    let highest = issuer.claims_but(json!({"realm_access": {"roles": ["audit", "dba"]}}));
    let pass = access.admit(&headers(&key.sign(&highest))).await.unwrap();
    assert_eq!(pass.role(), Some(Role::Auditor));
    let one = issuer.claims_but(json!({"aud": "pgwitness", "realm_access": {"roles": "dba"}}));
    let pass = access.admit(&headers(&key.sign(&one))).await.unwrap();
    assert_eq!(pass.role(), Some(Role::Analyst));
    // Somebody, and without a role: that opens nothing.
    let other = issuer.claims_but(json!({"realm_access": {"roles": ["Audit", 7]}}));
    let pass = access.admit(&headers(&key.sign(&other))).await.unwrap();
    assert!(pass.role().is_none() && !pass.may(Role::Viewer));

    let now = unix_s();
    for (changed, why) in [
        (json!({"aud": "another"}), "audience"),
        (json!({"aud": ["another"]}), "audience"),
        (json!({"aud": []}), "audience"),
        (json!({"aud": null}), "lacks"),
        (json!({"iss": "https://evil.example"}), "another issuer"),
        (
            json!({"iss": [issuer.url, "https://evil.example"]}),
            "another issuer",
        ),
        (json!({"iss": null}), "lacks"),
        (json!({"exp": now - 120}), "expired"),
        (json!({"exp": null}), "lacks"),
        (json!({"exp": "2099"}), "lacks"),
        (json!({"nbf": now + 300}), "not good yet"),
        (json!({"nbf": "soon"}), "does not hold"),
        (json!({"sub": null}), "does not say who"),
        (json!({"sub": ""}), "does not say who"),
        (json!({"sub": "a\nb"}), "does not say who"),
        (json!({"sub": 7}), "does not say who"),
    ] {
        let said = refused(&access, &key.sign(&issuer.claims_but(changed.clone()))).await;
        assert!(said.contains(why), "{changed}: {said}");
    }
}

#[tokio::test]
async fn only_signatures_of_the_issuers_own_keys_count() {
    let (key, strange) = (Signer::new("one"), Signer::new("one"));
    let issuer = served(None, None, &[&key]).await;
    let access = asked_about(issuer.settings(), Duration::ZERO);
    let claims = issuer.claims();
    let good = key.sign(&claims);
    assert!(access.admit(&headers(&good)).await.is_ok());
    let header = |alg: &str| json!({"alg": alg, "kid": "one"});
    let none = message(&header("none"), &claims);
    for token in [
        format!("{none}."),
        format!("{none}.{}", good.rsplit_once('.').unwrap().1),
        strange.sign(&claims),
        // The right signature, under another name.
        key.sign_under(&header("RS256"), &claims),
        key.sign_under(&header("ES384"), &claims),
        key.sign_under(&header("EdDSA"), &claims),
        key.sign_under(&json!({"alg": "ES256", "kid": "two"}), &claims),
        key.sign_under(&json!({"alg": "ES256", "kid": "other"}), &claims),
        key.sign_under(&json!({"alg": "ES256", "kid": "one", "crit": ["exp"]}), &claims),
        // A key of its own, which the token itself brings.
        strange.sign_under(&json!({"alg": "ES256", "jwk": strange.jwk()}), &claims),
        good.clone() + "A",
        good.replacen('.', "..", 1),
        good.clone() + "." + &good,
        "x".to_owned(),
        "e30.e30.".to_owned(),
        format!("{good}{}", "A".repeat(20_000)),
    ] {
        refused(&access, &token).await;
    }
    // The public key as a secret of HMAC, in every form that an issuer shows it in.
    let point = key.pair.public_key().as_ref().to_vec();
    for secret in [key.jwk().to_string().into_bytes(), point[1..].to_vec(), point] {
        let message = message(&header("HS256"), &claims);
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), message.as_bytes());
        let said = refused(&access, &format!("{message}.{}", BASE64.encode(signature))).await;
        assert!(said.contains("not taken here"), "{said}");
    }
    // A key for another purpose, and one for another algorithm.
    for (name, value) in [("use", "enc"), ("alg", "ES384")] {
        let mut jwk = key.jwk();
        jwk[name] = json!(value);
        *issuer.keys.lock().unwrap() = json!({ "keys": [jwk] });
        let fresh = asked_about(issuer.settings(), Duration::ZERO);
        let said = refused(&fresh, &good).await;
        assert!(said.contains("not for"), "{said}");
    }
}

#[tokio::test]
async fn keys_follow_the_issuer_and_strangers_do_not_make_it_be_asked() {
    let (first, second) = (Signer::new("one"), Signer::new("two"));
    let issuer = served(None, None, &[&first]).await;
    let access = asked_about(issuer.settings(), Duration::ZERO);
    let sign = |key: &Signer| headers(&key.sign(&issuer.claims()));
    assert!(access.admit(&sign(&first)).await.is_ok());
    assert!(access.admit(&sign(&second)).await.is_err(), "not shown yet");
    issuer.show(&[&first, &second]);
    assert!(access.admit(&sign(&second)).await.is_ok());
    issuer.show(&[&second]);
    let third = Signer::new("three");
    assert!(access.admit(&sign(&third)).await.is_err());
    assert!(access.admit(&sign(&first)).await.is_err(), "taken back");
    assert!(access.admit(&sign(&second)).await.is_ok());

    let patient = asked_about(issuer.settings(), Duration::from_secs(600));
    assert!(patient.admit(&sign(&second)).await.is_ok());
    let asked = issuer.asked.load(Ordering::SeqCst);
    for _ in 0..20 {
        assert!(matches!(
            patient.admit(&sign(&third)).await,
            Err(Refusal::Wrong(_))
        ));
    }
    assert_eq!(issuer.asked.load(Ordering::SeqCst), asked);
    assert!(patient.admit(&sign(&second)).await.is_ok());
}

#[tokio::test]
async fn an_issuer_that_is_away_or_another_one_lets_nobody_in() {
    let key = Signer::new("one");
    let other = served(None, Some("https://id.example"), &[&key]).await;
    let mut away = other.settings();
    away.issuer = {
        let port = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        format!("http://127.0.0.1:{port}")
    };
    for settings in [other.settings(), away] {
        let mut claims = other.claims();
        claims["iss"] = json!(settings.issuer);
        let access = asked_about(settings, Duration::ZERO);
        let outcome = access.admit(&headers(&key.sign(&claims))).await;
        assert!(matches!(outcome, Err(Refusal::Unavailable(_))), "{outcome:?}");
        assert_eq!(access.admit(&HeaderMap::new()).await, Err(Refusal::Missing));
    }
}

#[tokio::test]
async fn keys_come_over_tls_of_a_known_authority_or_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let (tls, certificate) = shown(folder.path());
    let key = Signer::new("one");
    let issuer = served(Some(tls), None, &[&key]).await;
    let token = headers(&key.sign(&issuer.claims()));
    let mut settings = issuer.settings();
    let stranger = asked_about(settings.clone(), Duration::ZERO);
    assert!(matches!(
        stranger.admit(&token).await,
        Err(Refusal::Unavailable(_))
    ));
    settings.ca = Some(certificate);
    let known = asked_about(settings.clone(), Duration::ZERO);
    assert!(known.admit(&token).await.is_ok());

    let file = folder.path().join("keys.json");
    settings.jwks = Some(file.clone());
    assert!(Issuer::new(settings.clone()).is_err(), "there is no such file");
    fs::write(&file, issuer.keys.lock().unwrap().to_string()).unwrap();
    let asked = issuer.asked.load(Ordering::SeqCst);
    assert!(asked_about(settings, Duration::ZERO).admit(&token).await.is_ok());
    assert_eq!(issuer.asked.load(Ordering::SeqCst), asked, "nobody is asked");
}

/// A certificate for localhost, and its file.
fn shown(folder: &Path) -> (Arc<Tls>, std::path::PathBuf) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
    fs::write(&certificate, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let files = ReadersTls {
        certificate: certificate.clone(),
        key,
    };
    let tls = Tls::new(Authorities::Readers(files)).unwrap();
    assert_eq!(*tls.hosts(), ["localhost".to_owned()]);
    (Arc::new(tls), certificate)
}

#[test]
fn whoever_could_be_anybody_is_not_asked_for_keys() {
    for good in [
        "https://id.example/keys",
        "http://127.0.0.1:1/keys",
        "http://localhost/keys",
    ] {
        assert!(may_be_asked(good), "{good}");
    }
    for bad in [
        "http://id.example/keys",
        "ftp://127.0.0.1/",
        "keys",
        "http://127.0.0.1.evil.example/",
    ] {
        assert!(!may_be_asked(bad), "{bad}");
    }
}
